package harness

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sort"
	"strings"
	"sync"
)

const (
	mappings = `{"settings":{"number_of_shards":1},"mappings":{"properties":{` +
		`"number":{"type":"integer"},"title":{"type":"text"},"brand":{"type":"keyword"}}}}`
	words  = "laptop, phone or camera to edit video for kids"
	laptop = `{"multi_match":{"query":"` + words + `","fields":["title^2","description"]}}`
	atOnce = 40
)

var plain = Prefix + "-plain"

// Run does every scenario with clients that open makes, and ends the program at the first difference.
func Run(open func(url string, options Options) (Client, error)) {
	s := sides{open: open}
	s.straight = must(open(EngineURL, Options{}))
	s.through = must(open(ProxyURL, Options{}))
	runAll([]scenario{
		{"info and product check", s.alike(func(c Client) any { return c.Info().seen() })},
		{"create an index, ask for it, delete it", s.alike(makesAnIndex)},
		{"bulk helper", s.alike(fillsAnIndex)},
		{"an index beside the route", s.besideTheRoute},
		{"a routed search is reranked, its documents the engine's", s.reranked},
		{"a search by the client's own types", s.typed},
		{"msearch: each item its own", s.multiSearch},
		{"aggregations alone", s.alike(func(c Client) any {
			return c.Search(RoutedIndex, `{"size":0,"query":`+laptop+`,"aggs":{"price":{"stats":{"field":"price"}}}}`).seen()
		})},
		{"scroll", s.alike(scrolls)},
		{"search_after with a point in time", s.alike(pages)},
		{"errors: 404, 409, 400", s.alike(refusals)},
		{"compressed", s.compressed},
		{"the engine is away: 502 in its shape, tried again as the client does", s.away},
		{"one connection for one search after the other", s.oneConnection},
		{"many searches at once", s.manyAtOnce},
	})
}

type sides struct {
	open              func(url string, options Options) (Client, error)
	straight, through Client
}

func (s sides) alike(ask func(Client) any) func() {
	return func() { equal(ask(s.straight), ask(s.through)) }
}

func makesAnIndex(client Client) any {
	index := Prefix + "-made"
	return []seen{
		client.Create(index, mappings).seen(),
		client.Mapping(index).seen(),
		client.Delete(index).seen(),
		client.Mapping(index).seen(),
	}
}

func documents(count int) []string {
	all := []string{}
	for number := range count {
		brand := []string{"acme", "globex"}[number%2]
		all = append(all, fmt.Sprintf(`{"number":%d,"title":"Laptop %d","brand":"%s"}`, number, number, brand))
	}
	return all
}

func fillsAnIndex(client Client) any {
	index := Prefix + "-bulk"
	created := client.Create(index, mappings).seen()
	stats := must(client.Bulk(index, documents(500)))
	counted := client.Count(index).seen()
	return []any{created, stats, counted, client.Delete(index).seen()}
}

func (s sides) besideTheRoute() {
	s.straight.Create(plain, mappings)
	must(s.straight.Bulk(plain, documents(100)))
	body := `{"query":{"match":{"title":"laptop 7"}},"aggs":{"brands":{"terms":{"field":"brand"}}}}`
	one, other := s.straight.Search(plain, body), s.through.Search(plain, body)
	equal(one.seen(), other.seen())
	demand(other.Outcome() == "", "X-Rerank: %s", other.Outcome())
}

// sources are the engine's own documents; the vectors are the engine's business.
func (s sides) sources() map[string]map[string]any {
	body := `{"size":1000,"_source":{"excludes":["embedding","embedding_hash"]}}`
	all := map[string]map[string]any{}
	for _, hit := range s.straight.Search(RoutedIndex, body).found().Hits.Hits {
		all[hit.ID] = hit.Source
	}
	return all
}

func (s sides) reranked() {
	body := `{"size":50,"query":` + laptop + `,"aggs":{"brands":{"terms":{"field":"brand.keyword","size":100}}}}`
	one, other := s.straight.Search(RoutedIndex, body), s.through.Search(RoutedIndex, body)
	checkReranked(one.found(), other.found(), other.Outcome(), s.sources())
}

func checkReranked(one, other found, outcome string, sources map[string]map[string]any) {
	demand(strings.HasPrefix(outcome, "reranked"), "X-Rerank: %s", outcome)
	there := map[string]bool{}
	last := 1e9
	for _, hit := range other.Hits.Hits {
		demand(!there[hit.ID], "%s is there twice", hit.ID)
		demand(*hit.Score <= last, "a score rises at %s", hit.ID)
		equal(sources[hit.ID], hit.Source)
		there[hit.ID], last = true, *hit.Score
	}
	for _, id := range one.ids() {
		demand(there[id], "%s is missing", id)
	}
	demand(text(one.ids()) != text(other.ids()), "the order is the engine's own")
	demand(other.Hits.Total.Value >= one.Hits.Total.Value, "total %d", other.Hits.Total.Value)
	checkFacets(one, other)
}

// checkFacets checks that the counts of a facet cover the hits that are shown, and those of the engine alone.
func checkFacets(one, other found) {
	counts := other.brands()
	for brand, count := range one.brands() {
		demand(counts[brand] >= count, "%s: %d instead of at least %d", brand, counts[brand], count)
	}
	shown := map[string]int{}
	for _, hit := range other.Hits.Hits {
		shown[text(hit.Source["brand"])]++
	}
	for brand, count := range counts {
		demand(count >= shown[text(brand)], "%s: %d, and %d are shown", brand, count, shown[text(brand)])
	}
}

func (s sides) typed() {
	straight := must(s.straight.Typed(RoutedIndex, "title", words))
	through := must(s.through.Typed(RoutedIndex, "title", words))
	for _, id := range straight {
		demand(strings.Contains(text(through), id), "%s is missing in %s", id, text(through))
	}
	_, one := s.straight.Typed(Prefix+"-missing", "title", words)
	_, other := s.through.Typed(Prefix+"-missing", "title", words)
	demand(one != nil, "it was not refused")
	equal(Describe(one), Describe(other))
}

func (s sides) multiSearch() {
	lines := []string{
		`{"index":"` + RoutedIndex + `"}`, `{"size":50,"query":` + laptop + `}`,
		`{"index":"` + plain + `"}`, `{"query":{"match":{"title":"laptop"}}}`,
		`{"index":"` + Prefix + `-missing"}`, `{"query":{"match_all":{}}}`,
		`{"index":"` + RoutedIndex + `"}`, `{"size":0,"query":` + laptop + `}`,
	}
	body := strings.Join(lines, "\n") + "\n"
	one, other := s.straight.MultiSearch(body), s.through.MultiSearch(body)
	checkReranked(item(one, 0).found(), item(other, 0).found(), other.Outcome(), s.sources())
	for place := 1; place < 4; place++ {
		equal(item(one, place).seen(), item(other, place).seen())
	}
}

func item(reply Reply, place int) Reply {
	var read struct{ Responses []json.RawMessage }
	must(0, json.Unmarshal(reply.Body, &read))
	return Reply{Status: reply.Status, Body: read.Responses[place]}
}

func scrolls(client Client) any {
	all := []hit{}
	for _, reply := range must(client.Scroll(RoutedIndex, `{"size":7,"query":`+laptop+`}`)) {
		all = append(all, reply.found().Hits.Hits...)
	}
	demand(len(all) > 7, "only %d hits", len(all))
	return all
}

func pages(client Client) any {
	pit := must(client.OpenPIT(RoutedIndex))
	all, after := []hit{}, ""
	for {
		body := fmt.Sprintf(`{"pit":{"id":"%s","keep_alive":"1m"},"size":10,"query":%s,`+
			`"sort":[{"_score":"desc"},{"sku":"asc"}]%s}`, pit, laptop, after)
		page := client.Search("", body).found()
		if len(page.Hits.Hits) == 0 {
			break
		}
		all = append(all, page.Hits.Hits...)
		after = `,"search_after":` + string(page.Hits.Hits[len(page.Hits.Hits)-1].Sort)
		if page.PIT != "" {
			pit = page.PIT
		}
	}
	must(0, client.ClosePIT(pit))
	demand(len(all) > 10, "only %d hits", len(all))
	return all
}

func refusals(client Client) any {
	return []seen{
		client.Get(plain, "missing").seen(),
		client.Search(Prefix+"-missing", `{"query":`+laptop+`}`).seen(),
		client.Create(plain, mappings).seen(),
		client.Search(plain, `{"query":{"no_such_query":{}}}`).seen(),
		client.Search(RoutedIndex, `{"query":{"no_such_query":{}}}`).seen(),
		client.Search(RoutedIndex, `{"from":-1,"query":`+laptop+`}`).seen(),
		client.Search(RoutedIndex, `{"size":100000,"query":`+laptop+`}`).seen(),
		client.Search(RoutedIndex, `{"query":`+laptop).seen(),
	}
}

func (s sides) compressed() {
	packed := s
	packed.straight = must(s.open(EngineURL, Options{Compressed: true}))
	packed.through = must(s.open(ProxyURL, Options{Compressed: true}))
	packed.alike(fillsAnIndex)()
	packed.reranked()
}

func (s sides) away() {
	refusing := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		answer.Header().Set("Content-Type", "application/json")
		answer.WriteHeader(http.StatusBadGateway)
		_, _ = answer.Write([]byte(`{"error":{"type":"away","reason":"not there"},"status":502}`))
	}))
	defer refusing.Close()
	others, _ := s.searches(refusing.URL)
	ours, reply := s.searches(AwayURL)
	equal(others, ours)
	demand(reply.Status == 502, "status %d", reply.Status)
	var read struct {
		Status int
		Error  struct{ Type, Reason string }
	}
	must(0, json.Unmarshal(reply.Body, &read))
	demand(read.Status == 502 && read.Error.Type != "" && read.Error.Reason != "", "%s", reply.Body)
}

// searches says how often a client sends a search that is refused, and with what it ends.
func (s sides) searches(url string) (int64, Reply) {
	counting := NewCounting()
	reply := must(s.open(url, Options{Transport: counting})).Search(RoutedIndex, `{"query":`+laptop+`}`)
	return counting.Searches.Load(), reply
}

func (s sides) oneConnection() {
	for _, url := range []string{EngineURL, ProxyURL} {
		counting := NewCounting()
		client := must(s.open(url, Options{Transport: counting}))
		for number := range 20 {
			client.Search(plain, fmt.Sprintf(`{"query":{"term":{"number":%d}}}`, number)).found()
		}
		demand(counting.Connections.Load() == 1, "%s: %d connections", url, counting.Connections.Load())
	}
}

func (s sides) manyAtOnce() {
	body := `{"size":10,"query":` + laptop + `}`
	expected := s.through.Search(RoutedIndex, body).found().ids()
	replies := make([]Reply, atOnce)
	var group sync.WaitGroup
	for place := range replies {
		group.Go(func() { replies[place] = s.through.Search(RoutedIndex, body) })
	}
	group.Wait()
	outcomes := []string{}
	for _, reply := range replies {
		equal(expected, reply.found().ids())
		outcomes = append(outcomes, reply.Outcome())
	}
	sort.Strings(outcomes)
	demand(strings.HasPrefix(outcomes[0], "reranked"), "X-Rerank: %s", outcomes[0])
}

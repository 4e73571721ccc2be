package harness

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
)

type scenario struct {
	name string
	run  func()
}

// difference is what a scenario panics with; whatever else it panics with is a failure as well.
type difference string

func demand(holds bool, form string, words ...any) {
	if !holds {
		panic(difference(fmt.Sprintf(form, words...)))
	}
}

func must[T any](value T, err error) T {
	demand(err == nil, "unexpected %s", Describe(err))
	return value
}

func equal(straight, through any) {
	demand(reflect.DeepEqual(straight, through), "straight %s\nthrough  %s", text(straight), text(through))
}

func text(value any) string {
	written, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return fmt.Sprintf("%#v", value)
	}
	return string(written)
}

func runAll(scenarios []scenario) {
	for _, each := range scenarios {
		func() {
			defer func() {
				if reason := recover(); reason != nil {
					fmt.Printf("DIFFERS %s: %v\n", each.name, reason)
					if _, known := reason.(difference); !known {
						debug.PrintStack()
					}
					os.Exit(1)
				}
			}()
			each.run()
		}()
		fmt.Printf("ok %s\n", each.name)
	}
}

// seen is a reply as far as it must be the same on both sides.
type seen struct {
	Status  int
	Error   string
	Product string
	Body    any
}

func (r Reply) seen() seen {
	return seen{r.Status, Describe(r.Err), r.Header.Get("X-Elastic-Product"), steady(r.Body)}
}

// steady reads JSON and takes out what differs from one search to the next.
func steady(body []byte) any {
	var value any
	if json.Unmarshal(body, &value) != nil {
		return string(body)
	}
	return without(value)
}

func without(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for _, name := range []string{"took", "_scroll_id", "pit_id"} {
			delete(value, name)
		}
		for name, each := range value {
			value[name] = without(each)
		}
	case []any:
		for place, each := range value {
			value[place] = without(each)
		}
	}
	return value
}

type hit struct {
	ID     string          `json:"_id"`
	Score  *float64        `json:"_score"`
	Source map[string]any  `json:"_source"`
	Sort   json.RawMessage `json:"sort"`
}

type found struct {
	ScrollID string `json:"_scroll_id"`
	PIT      string `json:"pit_id"`
	Hits     struct {
		Total struct{ Value int }
		Hits  []hit
	}
	Aggregations struct {
		Brands struct {
			Buckets []struct {
				Key      string
				DocCount int `json:"doc_count"`
			}
		}
	}
}

// brands returns the counts of the facet.
func (f found) brands() map[string]int {
	counts := map[string]int{}
	for _, bucket := range f.Aggregations.Brands.Buckets {
		counts[bucket.Key] = bucket.DocCount
	}
	return counts
}

func (f found) ids() []string {
	ids := []string{}
	for _, hit := range f.Hits.Hits {
		ids = append(ids, hit.ID)
	}
	return ids
}

func (r Reply) found() found {
	demand(r.Err == nil && r.Status == 200, "status %d, %s: %s", r.Status, Describe(r.Err), r.Body)
	var read found
	must(0, json.Unmarshal(r.Body, &read))
	return read
}

// Text reads a member of a JSON object; it is empty where there is no such text.
func Text(body []byte, name string) string {
	var value map[string]any
	_ = json.Unmarshal(body, &value)
	text, _ := value[name].(string)
	return text
}

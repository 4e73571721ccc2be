// go-elasticsearch v9. What is here is written alike in elasticsearch8: import paths differ, and how a PIT is opened and closed.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"clients/harness"

	elasticsearch "github.com/elastic/go-elasticsearch/v9"
	"github.com/elastic/go-elasticsearch/v9/esapi"
	"github.com/elastic/go-elasticsearch/v9/esutil"
	"github.com/elastic/go-elasticsearch/v9/typedapi/types"
)

type client struct {
	*elasticsearch.Client
	typed *elasticsearch.TypedClient
}

func open(url string, options harness.Options) (harness.Client, error) {
	config := elasticsearch.Config{
		Addresses:           []string{url},
		CompressRequestBody: options.Compressed,
		Transport:           options.Transport,
	}
	plain, err := elasticsearch.NewClient(config)
	if err != nil {
		return nil, err
	}
	typed, err := elasticsearch.NewTypedClient(config)
	return client{plain, typed}, err
}

func read(response *esapi.Response, err error) harness.Reply {
	if err != nil {
		return harness.Reply{Err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return harness.Reply{Status: response.StatusCode, Header: response.Header, Body: body, Err: err}
}

func (c client) Info() harness.Reply { return read(c.Client.Info()) }

func (c client) Create(index, body string) harness.Reply {
	return read(c.Indices.Create(index, c.Indices.Create.WithBody(strings.NewReader(body))))
}

func (c client) Mapping(index string) harness.Reply {
	return read(c.Indices.GetMapping(c.Indices.GetMapping.WithIndex(index)))
}

func (c client) Delete(index string) harness.Reply { return read(c.Indices.Delete([]string{index})) }

func (c client) Get(index, id string) harness.Reply { return read(c.Client.Get(index, id)) }

func (c client) Count(index string) harness.Reply {
	return read(c.Client.Count(c.Client.Count.WithIndex(index)))
}

func (c client) Bulk(index string, documents []string) (string, error) {
	bulk, err := esutil.NewBulkIndexer(esutil.BulkIndexerConfig{
		Client: c.Client, Index: index, NumWorkers: 2, FlushBytes: 4096, Refresh: "true",
	})
	if err != nil {
		return "", err
	}
	for number, document := range documents {
		id := fmt.Sprint(number)
		item := esutil.BulkIndexerItem{Action: "index", DocumentID: id, Body: strings.NewReader(document)}
		if err := bulk.Add(context.Background(), item); err != nil {
			return "", err
		}
	}
	err = bulk.Close(context.Background())
	stats := bulk.Stats()
	return fmt.Sprint(stats.NumAdded, stats.NumFlushed, stats.NumIndexed, stats.NumFailed), err
}

func (c client) Search(index, body string) harness.Reply {
	asked := []func(*esapi.SearchRequest){c.Client.Search.WithBody(strings.NewReader(body))}
	if index != "" {
		asked = append(asked, c.Client.Search.WithIndex(index))
	}
	return read(c.Client.Search(asked...))
}

func (c client) MultiSearch(body string) harness.Reply {
	return read(c.Msearch(strings.NewReader(body)))
}

func (c client) Scroll(index, body string) ([]harness.Reply, error) {
	reply := read(c.Client.Search(
		c.Client.Search.WithIndex(index),
		c.Client.Search.WithBody(strings.NewReader(body)),
		c.Client.Search.WithScroll(time.Minute),
	))
	replies := []harness.Reply{reply}
	for bytes.Contains(reply.Body, []byte(`"_source"`)) {
		id := harness.Text(reply.Body, "_scroll_id")
		if reply = read(c.Client.Scroll(c.Client.Scroll.WithScrollID(id), c.Client.Scroll.WithScroll(time.Minute))); reply.Err != nil {
			return nil, reply.Err
		}
		replies = append(replies, reply)
	}
	id := harness.Text(reply.Body, "_scroll_id")
	return replies, read(c.ClearScroll(c.ClearScroll.WithScrollID(id))).Err
}

func (c client) OpenPIT(index string) (string, error) {
	reply := read(c.OpenPointInTime([]string{index}, time.Minute))
	return harness.Text(reply.Body, "id"), reply.Err
}

func (c client) ClosePIT(id string) error {
	body := strings.NewReader(fmt.Sprintf(`{"id":"%s"}`, id))
	return read(c.ClosePointInTime(body)).Err
}

func (c client) Typed(index, field, text string) ([]string, error) {
	query := &types.Query{Match: map[string]types.MatchQuery{field: {Query: text}}}
	found, err := c.typed.Search().Index(index).Query(query).Size(50).Do(context.Background())
	if err != nil {
		return nil, err
	}
	ids := []string{}
	for _, hit := range found.Hits.Hits {
		ids = append(ids, *hit.Id_)
	}
	return ids, nil
}

func main() { harness.Run(open) }

// opensearch-go v4.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"clients/harness"

	"github.com/opensearch-project/opensearch-go/v4"
	"github.com/opensearch-project/opensearch-go/v4/opensearchapi"
	"github.com/opensearch-project/opensearch-go/v4/opensearchutil"
)

type client struct{ *opensearchapi.Client }

var background = context.Background()

func open(url string, options harness.Options) (harness.Client, error) {
	made, err := opensearchapi.NewClient(opensearchapi.Config{Client: opensearch.Config{
		Addresses:           []string{url},
		CompressRequestBody: options.Compressed,
		Transport:           options.Transport,
	}})
	return client{made}, err
}

// inspected is every answer of this client: it keeps what came beneath its own types.
type inspected interface{ Inspect() opensearchapi.Inspect }

func read[R inspected](answer R, err error) harness.Reply {
	response := answer.Inspect().Response
	if response == nil {
		return harness.Reply{Err: err}
	}
	var body []byte
	if response.Body != nil {
		body, _ = io.ReadAll(response.Body)
	}
	return harness.Reply{Status: response.StatusCode, Header: response.Header, Body: body, Err: err}
}

func (c client) Info() harness.Reply { return read(c.Client.Info(background, nil)) }

func (c client) Create(index, body string) harness.Reply {
	return read(c.Indices.Create(background, opensearchapi.IndicesCreateReq{Index: index, Body: strings.NewReader(body)}))
}

func (c client) Mapping(index string) harness.Reply {
	return read(c.Indices.Mapping.Get(background, &opensearchapi.MappingGetReq{Indices: []string{index}}))
}

func (c client) Delete(index string) harness.Reply {
	return read(c.Indices.Delete(background, opensearchapi.IndicesDeleteReq{Indices: []string{index}}))
}

func (c client) Get(index, id string) harness.Reply {
	return read(c.Document.Get(background, opensearchapi.DocumentGetReq{Index: index, DocumentID: id}))
}

func (c client) Count(index string) harness.Reply {
	return read(c.Indices.Count(background, &opensearchapi.IndicesCountReq{Indices: []string{index}}))
}

func (c client) Bulk(index string, documents []string) (string, error) {
	bulk, err := opensearchutil.NewBulkIndexer(opensearchutil.BulkIndexerConfig{
		Client: c.Client, Index: index, NumWorkers: 2, FlushBytes: 4096, Refresh: "true",
	})
	if err != nil {
		return "", err
	}
	for number, document := range documents {
		id := fmt.Sprint(number)
		item := opensearchutil.BulkIndexerItem{Action: "index", DocumentID: id, Body: strings.NewReader(document)}
		if err := bulk.Add(background, item); err != nil {
			return "", err
		}
	}
	err = bulk.Close(background)
	stats := bulk.Stats()
	return fmt.Sprint(stats.NumAdded, stats.NumFlushed, stats.NumIndexed, stats.NumFailed), err
}

func search(index, body string) *opensearchapi.SearchReq {
	asked := &opensearchapi.SearchReq{Body: strings.NewReader(body)}
	if index != "" {
		asked.Indices = []string{index}
	}
	return asked
}

func (c client) Search(index, body string) harness.Reply {
	return read(c.Client.Search(background, search(index, body)))
}

func (c client) MultiSearch(body string) harness.Reply {
	return read(c.MSearch(background, opensearchapi.MSearchReq{Body: strings.NewReader(body)}))
}

func (c client) Scroll(index, body string) ([]harness.Reply, error) {
	asked := search(index, body)
	asked.Params.Scroll = time.Minute
	reply := read(c.Client.Search(background, asked))
	replies := []harness.Reply{reply}
	for bytes.Contains(reply.Body, []byte(`"_source"`)) {
		next := opensearchapi.ScrollGetReq{ScrollID: harness.Text(reply.Body, "_scroll_id")}
		next.Params.Scroll = time.Minute
		if reply = read(c.Client.Scroll.Get(background, next)); reply.Err != nil {
			return nil, reply.Err
		}
		replies = append(replies, reply)
	}
	ids := []string{harness.Text(reply.Body, "_scroll_id")}
	return replies, read(c.Client.Scroll.Delete(background, opensearchapi.ScrollDeleteReq{ScrollIDs: ids})).Err
}

func (c client) OpenPIT(index string) (string, error) {
	asked := opensearchapi.PointInTimeCreateReq{Indices: []string{index}}
	asked.Params.KeepAlive = time.Minute
	made, err := c.PointInTime.Create(background, asked)
	if err != nil {
		return "", err
	}
	return made.PitID, nil
}

func (c client) ClosePIT(id string) error {
	_, err := c.PointInTime.Delete(background, opensearchapi.PointInTimeDeleteReq{PitID: []string{id}})
	return err
}

func (c client) Typed(index, field, text string) ([]string, error) {
	query := map[string]any{"size": 50, "query": map[string]any{"match": map[string]any{field: text}}}
	body, err := json.Marshal(query)
	if err != nil {
		return nil, err
	}
	found, err := c.Client.Search(background, search(index, string(body)))
	if err != nil {
		return nil, err
	}
	ids := []string{}
	for _, hit := range found.Hits.Hits {
		ids = append(ids, hit.ID)
	}
	return ids, nil
}

func main() { harness.Run(open) }

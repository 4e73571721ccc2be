// Package harness runs scenarios with a client straight at the engine and through the proxy.
package harness

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
)

// The addresses and names that ../run.py tells.
var (
	EngineURL   = os.Getenv("ENGINE_URL")
	ProxyURL    = os.Getenv("PROXY_URL")
	AwayURL     = os.Getenv("AWAY_URL")
	RoutedIndex = os.Getenv("ROUTED_INDEX")
	Prefix      = os.Getenv("PREFIX")
)

// Reply is what a call brought, in the client's own words where it made an error of it.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
	Err    error
}

// Outcome is the proxy's word on a search, empty where it has none.
func (r Reply) Outcome() string { return r.Header.Get("X-Rerank") }

// Options are what a program sets beside the address.
type Options struct {
	Compressed bool
	Transport  http.RoundTripper
}

// Client is what the scenarios ask of a client; each program writes it in that client's calls.
type Client interface {
	Info() Reply
	Create(index, body string) Reply
	Mapping(index string) Reply
	Delete(index string) Reply
	Get(index, id string) Reply
	Count(index string) Reply
	Bulk(index string, documents []string) (string, error)
	Search(index, body string) Reply
	MultiSearch(body string) Reply
	Scroll(index, body string) ([]Reply, error)
	OpenPIT(index string) (string, error)
	ClosePIT(id string) error
	// Typed searches by the client's own types, and returns ids, or the class and status of its error.
	Typed(index, field, text string) ([]string, error)
}

// Counting is Go's own transport, counting the searches it sends and the connections it opens.
type Counting struct {
	http.Transport
	Searches, Connections atomic.Int64
}

// NewCounting returns a transport set as Go's default one.
func NewCounting() *Counting {
	counting := &Counting{}
	counting.Transport = *http.DefaultTransport.(*http.Transport).Clone()
	counting.Proxy = nil
	counting.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		counting.Connections.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return counting
}

// RoundTrip counts, and sends.
func (c *Counting) RoundTrip(request *http.Request) (*http.Response, error) {
	if strings.HasSuffix(request.URL.Path, "/_search") { // opensearch-go looks after its nodes' health besides
		c.Searches.Add(1)
	}
	return c.Transport.RoundTrip(request)
}

// Describe names an error's class and its words.
func Describe(err error) string {
	if err == nil {
		return "none"
	}
	return fmt.Sprintf("%T: %s", err, err)
}

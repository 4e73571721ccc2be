import co.elastic.clients.elasticsearch.ElasticsearchClient;
import co.elastic.clients.elasticsearch._helpers.bulk.BulkIngester;
import co.elastic.clients.elasticsearch._types.ElasticsearchException;
import co.elastic.clients.elasticsearch._types.FieldValue;
import co.elastic.clients.elasticsearch._types.SortOrder;
import co.elastic.clients.elasticsearch._types.query_dsl.Query;
import co.elastic.clients.elasticsearch.core.MsearchResponse;
import co.elastic.clients.elasticsearch.core.SearchRequest;
import co.elastic.clients.elasticsearch.core.SearchResponse;
import co.elastic.clients.elasticsearch.core.msearch.MultiSearchResponseItem;
import co.elastic.clients.elasticsearch.core.search.Hit;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.stream.IntStream;

/** elasticsearch-java, 8 and 9 by the same code. */
public final class Main {
    private static final String PLAIN = Harness.PREFIX + "-plain";
    private static final String MISSING = Harness.PREFIX + "-missing";
    private static final Query LAPTOP =
            Query.of(q -> q.multiMatch(m -> m.query(Harness.WORDS).fields("title^2", "description")));

    private final Harness.Wire wire = new Harness.Wire();
    private final ElasticsearchClient straight = Opening.open(Harness.ENGINE_URL, false, new Harness.Wire());
    private final ElasticsearchClient through = Opening.open(Harness.PROXY_URL, false, wire);

    private interface Ask {
        Object of(ElasticsearchClient client) throws Exception;
    }

    private Harness.Scenario alike(Ask ask) {
        return () -> Harness.equal(Harness.steady(ask.of(straight)), Harness.steady(ask.of(through)));
    }

    public static void main(String[] arguments) {
        new Main().run();
    }

    private void run() {
        var all = new Harness();
        all.add("info and product check", alike(ElasticsearchClient::info));
        all.add("create an index, ask for it, delete it", alike(this::makesAnIndex));
        all.add("bulk ingester", alike(client -> fill(client, Harness.PREFIX + "-bulk", 500, true)));
        all.add("an index beside the route", this::besideTheRoute);
        all.add("a routed search is reranked, its documents the engine's", () -> reranked(straight, through, wire));
        all.add("msearch: each item its own", this::multiSearch);
        all.add("aggregations alone", alike(client -> client.search(s -> s.index(Harness.ROUTED).size(0).query(LAPTOP)
                .aggregations("price", a -> a.stats(t -> t.field("price"))), Map.class)));
        all.add("scroll", alike(this::scrolls));
        all.add("search_after with a point in time", alike(this::pages));
        all.add("errors: 404, 409, 400", alike(this::refusals));
        all.add("compressed both ways", this::compressed);
        all.add("the engine is away: 502, of the class that the client makes of it", this::away);
        all.add("connections are kept from one search to the next", this::oneConnection);
        all.add("many searches at once", this::manyAtOnce);
        all.run();
    }

    private Object makesAnIndex(ElasticsearchClient client) throws Exception {
        var index = Harness.PREFIX + "-made";
        return List.of(
                create(client, index),
                client.indices().getMapping(m -> m.index(index)),
                client.indices().exists(e -> e.index(index)).value(),
                client.indices().delete(d -> d.index(index)),
                client.indices().exists(e -> e.index(index)).value());
    }

    private static Object create(ElasticsearchClient client, String index) throws Exception {
        return client.indices().create(c -> c.index(index)
                .settings(s -> s.numberOfShards("1"))
                .mappings(m -> m.properties("number", p -> p.integer(i -> i))
                        .properties("title", p -> p.text(t -> t))
                        .properties("brand", p -> p.keyword(k -> k))));
    }

    private static Object fill(ElasticsearchClient client, String index, int count, boolean gone) throws Exception {
        var created = create(client, index);
        BulkIngester<Void> bulk = BulkIngester.of(b -> b.client(client).maxOperations(100).maxConcurrentRequests(2));
        for (int number = 0; number < count; number++) {
            var id = String.valueOf(number);
            var document = Map.of("number", number, "title", "Laptop " + id, "brand", number % 2 == 0 ? "acme" : "globex");
            bulk.add(o -> o.index(i -> i.index(index).id(id).document(document)));
        }
        bulk.close();
        client.indices().refresh(r -> r.index(index));
        var counted = client.count(c -> c.index(index));
        var deleted = gone ? client.indices().delete(d -> d.index(index)) : "kept";
        return List.of(created, bulk.operationsCount(), counted, deleted);
    }

    private void besideTheRoute() throws Exception {
        fill(straight, PLAIN, 100, false);
        alike(client -> client.search(s -> s.index(PLAIN).query(q -> q.match(m -> m.field("title").query("laptop 7")))
                .aggregations("brands", a -> a.terms(t -> t.field("brand"))), Map.class)).run();
        Harness.equal("", wire.last());
    }

    private static SearchRequest routed(int size) {
        return SearchRequest.of(s -> s.index(Harness.ROUTED).size(size).query(LAPTOP)
                .aggregations("brands", a -> a.terms(t -> t.field("brand.keyword").size(100))));
    }

    private static Map<String, Long> brands(SearchResponse<Map> found) {
        var counts = new HashMap<String, Long>();
        found.aggregations().get("brands").sterms().buckets().array()
                .forEach(bucket -> counts.put(bucket.key().stringValue(), bucket.docCount()));
        return counts;
    }

    private void reranked(ElasticsearchClient one, ElasticsearchClient other, Harness.Wire seen) throws Exception {
        var expected = one.search(routed(50), Map.class);
        checkReranked(expected, other.search(routed(50), Map.class), seen.last());
        var counts = brands(other.search(routed(50), Map.class));
        brands(expected).forEach((brand, count) -> Harness.demand(
                counts.getOrDefault(brand, 0L) >= count, brand + ": " + counts.get(brand) + " instead of at least " + count));
    }

    /** The engine's own documents; the vectors are the engine's business. */
    private Map<String, Object> sources() throws Exception {
        var all = straight.search(s -> s.index(Harness.ROUTED).size(1000)
                .source(f -> f.filter(e -> e.excludes("embedding", "embedding_hash"))), Map.class);
        var found = new HashMap<String, Object>();
        all.hits().hits().forEach(hit -> found.put(hit.id(), hit.source()));
        return found;
    }

    private void checkReranked(SearchResponse<Map> one, SearchResponse<Map> other, String outcome) throws Exception {
        checkHits(one.hits().hits(), other.hits().hits(), outcome);
        Harness.demand(other.hits().total().value() >= one.hits().total().value(), other.hits().total());
    }

    private void checkHits(List<Hit<Map>> one, List<Hit<Map>> other, String outcome) throws Exception {
        Harness.demand(outcome.startsWith("reranked"), outcome);
        var ids = ids(other);
        Harness.equal(ids.size(), new HashSet<>(ids).size());
        Harness.demand(ids.containsAll(ids(one)), ids(one) + " are not all in " + ids);
        Harness.demand(!ids.equals(ids(one)), "the order is the engine's own");
        var sources = sources();
        for (var hit : other) {
            Harness.equal(sources.get(hit.id()), hit.source());
        }
    }

    private static List<String> ids(List<Hit<Map>> hits) {
        return hits.stream().map(Hit::id).toList();
    }

    private static MsearchResponse<Map> searches(ElasticsearchClient client) throws Exception {
        return client.msearch(m -> m
                .searches(s -> s.header(h -> h.index(Harness.ROUTED)).body(b -> b.query(LAPTOP).size(50)))
                .searches(s -> s.header(h -> h.index(PLAIN)).body(b -> b.query(q -> q.match(t -> t.field("title").query("laptop")))))
                .searches(s -> s.header(h -> h.index(MISSING)).body(b -> b.query(q -> q.matchAll(a -> a)))), Map.class);
    }

    private void multiSearch() throws Exception {
        var one = searches(straight).responses();
        var other = searches(through).responses();
        checkHits(one.get(0).result().hits().hits(), other.get(0).result().hits().hits(), wire.last());
        for (int place = 1; place < 3; place++) {
            Harness.equal(described(one.get(place)), described(other.get(place)));
        }
    }

    private static String described(MultiSearchResponseItem<Map> item) {
        return Harness.steady(item.isFailure() ? item.failure() : item.result());
    }

    private Object scrolls(ElasticsearchClient client) throws Exception {
        var first = client.search(s -> s.index(Harness.ROUTED).size(7).query(LAPTOP).scroll(t -> t.time("1m")), Map.class);
        var all = new ArrayList<>(described(first.hits().hits()));
        var id = first.scrollId();
        while (true) {
            var at = id;
            var next = client.scroll(s -> s.scrollId(at).scroll(t -> t.time("1m")), Map.class);
            id = next.scrollId();
            if (next.hits().hits().isEmpty()) {
                break;
            }
            all.addAll(described(next.hits().hits()));
        }
        var last = id;
        client.clearScroll(c -> c.scrollId(last));
        Harness.demand(all.size() > 7, all);
        return all;
    }

    private Object pages(ElasticsearchClient client) throws Exception {
        var pit = client.openPointInTime(p -> p.index(Harness.ROUTED).keepAlive(t -> t.time("1m"))).id();
        var all = new ArrayList<String>();
        List<FieldValue> after = List.of();
        while (true) {
            var from = after;
            var id = pit;
            var page = client.search(s -> {
                s.pit(p -> p.id(id).keepAlive(t -> t.time("1m"))).size(10).query(LAPTOP)
                        .sort(o -> o.score(c -> c.order(SortOrder.Desc)))
                        .sort(o -> o.field(f -> f.field("sku").order(SortOrder.Asc)));
                return from.isEmpty() ? s : s.searchAfter(from);
            }, Map.class);
            if (page.hits().hits().isEmpty()) {
                break;
            }
            all.addAll(described(page.hits().hits()));
            after = page.hits().hits().get(page.hits().hits().size() - 1).sort();
            pit = page.pitId();
        }
        var last = pit;
        client.closePointInTime(p -> p.id(last));
        Harness.demand(all.size() > 10, all);
        return all;
    }

    private static List<String> described(List<Hit<Map>> hits) {
        return hits.stream().map(hit -> hit.id() + " " + hit.score() + " " + hit.source()).toList();
    }

    private Object refusals(ElasticsearchClient client) throws Exception {
        Query wrong = Query.of(q -> q.range(r -> r.date(d -> d.field("price").gte("no number"))));
        List<Callable<?>> asked = List.of(
                () -> client.search(s -> s.index(MISSING).query(LAPTOP), Map.class),
                () -> create(client, PLAIN),
                () -> client.search(s -> s.index(Harness.ROUTED).query(wrong), Map.class),
                () -> client.search(s -> s.index(Harness.ROUTED).query(LAPTOP).size(100000), Map.class),
                () -> client.search(s -> s.index(Harness.ROUTED).query(LAPTOP).from(-1), Map.class));
        var said = new ArrayList<String>();
        for (var ask : asked) {
            var error = (ElasticsearchException) Harness.refused(ask);
            said.add(error.status() + " " + error.endpointId() + " " + error.response());
        }
        said.add(String.valueOf(client.get(g -> g.index(PLAIN).id("missing"), Map.class).found()));
        return said;
    }

    private void compressed() throws Exception {
        var seen = new Harness.Wire();
        var one = Opening.open(Harness.ENGINE_URL, true, new Harness.Wire());
        var other = Opening.open(Harness.PROXY_URL, true, seen);
        var index = Harness.PREFIX + "-packed";
        Harness.equal(String.valueOf(fill(one, index, 200, true)), String.valueOf(fill(other, index, 200, true)));
        reranked(one, other, seen);
    }

    private void away() throws Exception {
        var others = Harness.refused(() -> Opening.open(Harness.refusing(), false, new Harness.Wire()).search(routed(10), Map.class));
        var ours = Harness.refused(() -> Opening.open(Harness.AWAY_URL, false, new Harness.Wire()).search(routed(10), Map.class));
        Harness.equal(others.getClass(), ours.getClass());
        Harness.demand(ours.toString().contains("502"), ours);
    }

    private void oneConnection() throws Exception {
        for (var url : List.of(Harness.ENGINE_URL, Harness.PROXY_URL)) {
            var seen = new Harness.Wire();
            var client = Opening.open(url, false, seen);
            for (int turn = 0; turn < 20; turn++) {
                client.search(s -> s.index(PLAIN), Map.class);
            }
            // HttpClient 5 may ask for the next before it has put the first one back, on a busy machine several times.
            Harness.demand(seen.connections.size() <= 5, url + ": " + seen.connections);
        }
    }

    private void manyAtOnce() throws Exception {
        var expected = ids(through.search(routed(10), Map.class).hits().hits());
        var before = wire.outcomes.size();
        var pool = Executors.newFixedThreadPool(Harness.AT_ONCE);
        List<Callable<List<String>>> asked = IntStream.range(0, Harness.AT_ONCE)
                .<Callable<List<String>>>mapToObj(turn -> () -> ids(through.search(routed(10), Map.class).hits().hits()))
                .toList();
        for (var answer : pool.invokeAll(asked)) {
            Harness.equal(expected, answer.get());
        }
        pool.shutdown();
        var outcomes = wire.outcomes.subList(before, wire.outcomes.size());
        Harness.demand(outcomes.stream().allMatch(outcome -> outcome.startsWith("reranked")), outcomes);
    }
}

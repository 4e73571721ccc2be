import co.elastic.clients.elasticsearch.ElasticsearchClient;
import co.elastic.clients.json.jackson.JacksonJsonpMapper;
import co.elastic.clients.transport.rest_client.RestClientTransport;
import org.apache.http.HttpHost;
import org.apache.http.HttpInetConnection;
import org.apache.http.HttpResponseInterceptor;
import org.apache.http.protocol.HttpCoreContext;
import org.elasticsearch.client.RestClient;

/** How elasticsearch-java 8 is given an address: over the low-level RestClient. */
final class Opening {
    static ElasticsearchClient open(String url, boolean compressed, Harness.Wire wire) {
        HttpResponseInterceptor seen = (response, context) -> {
            var outcome = response.getFirstHeader("X-Rerank");
            var connection = HttpCoreContext.adapt(context).getConnection();
            var port = connection instanceof HttpInetConnection inet ? inet.getLocalPort() : -1;
            wire.answered(outcome == null ? null : outcome.getValue(), port);
        };
        var client = RestClient.builder(HttpHost.create(url))
                .setCompressionEnabled(compressed)
                .setHttpClientConfigCallback(builder -> builder.addInterceptorLast(seen))
                .build();
        return new ElasticsearchClient(new RestClientTransport(client, new JacksonJsonpMapper()));
    }
}

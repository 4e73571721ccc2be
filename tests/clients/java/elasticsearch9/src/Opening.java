import co.elastic.clients.elasticsearch.ElasticsearchClient;
import co.elastic.clients.json.jackson.JacksonJsonpMapper;
import co.elastic.clients.transport.rest5_client.Rest5ClientTransport;
import co.elastic.clients.transport.rest5_client.low_level.Rest5Client;
import java.net.URI;
import org.apache.hc.core5.http.HttpResponseInterceptor;
import org.apache.hc.core5.http.protocol.HttpCoreContext;

/** How elasticsearch-java 9 is given an address: over its own Rest5Client. */
final class Opening {
    static ElasticsearchClient open(String url, boolean compressed, Harness.Wire wire) {
        HttpResponseInterceptor seen = (response, entity, context) -> {
            var outcome = response.getFirstHeader("X-Rerank");
            var endpoint = HttpCoreContext.cast(context).getEndpointDetails();
            wire.answered(outcome == null ? null : outcome.getValue(), endpoint.getLocalAddress());
        };
        var client = Rest5Client.builder(URI.create(url))
                .setCompressionEnabled(compressed)
                .setHttpClientConfigCallback(builder -> builder.addResponseInterceptorLast(seen))
                .build();
        return new ElasticsearchClient(new Rest5ClientTransport(client, new JacksonJsonpMapper()));
    }
}

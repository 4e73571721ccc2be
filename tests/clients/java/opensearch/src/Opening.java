import java.net.URI;
import org.apache.hc.core5.http.HttpHost;
import org.apache.hc.core5.http.HttpResponseInterceptor;
import org.apache.hc.core5.http.protocol.HttpCoreContext;
import org.opensearch.client.json.jackson.JacksonJsonpMapper;
import org.opensearch.client.opensearch.OpenSearchClient;
import org.opensearch.client.transport.httpclient5.ApacheHttpClient5TransportBuilder;

/** How opensearch-java is given an address: over Apache's HttpClient 5. */
final class Opening {
    static OpenSearchClient open(String url, boolean compressed, Harness.Wire wire) {
        HttpResponseInterceptor seen = (response, entity, context) -> {
            var outcome = response.getFirstHeader("X-Rerank");
            var endpoint = HttpCoreContext.cast(context).getEndpointDetails();
            wire.answered(outcome == null ? null : outcome.getValue(), endpoint.getLocalAddress());
        };
        var transport = ApacheHttpClient5TransportBuilder.builder(HttpHost.create(URI.create(url)))
                .setCompressionEnabled(compressed)
                .setMapper(new JacksonJsonpMapper())
                .setHttpClientConfigCallback(builder -> builder.addResponseInterceptorLast(seen))
                .build();
        return new OpenSearchClient(transport);
    }
}

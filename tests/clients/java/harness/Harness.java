import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CopyOnWriteArrayList;

/** Runs scenarios one after the other; the first difference ends the program. */
final class Harness {
    static final String ENGINE_URL = System.getenv("ENGINE_URL");
    static final String PROXY_URL = System.getenv("PROXY_URL");
    static final String AWAY_URL = System.getenv("AWAY_URL");
    static final String ROUTED = System.getenv("ROUTED_INDEX");
    static final String PREFIX = System.getenv("PREFIX");
    static final String WORDS = "laptop, phone or camera to edit video for kids";
    static final int AT_ONCE = 40;

    /** What passed beneath a client: the `X-Rerank` of its answers, and the connections they came by. */
    static final class Wire {
        final List<String> outcomes = new CopyOnWriteArrayList<>();
        final Set<String> connections = Collections.synchronizedSet(new LinkedHashSet<>());

        void answered(String outcome, Object connection) {
            outcomes.add(outcome == null ? "" : outcome);
            connections.add(String.valueOf(connection));
        }

        String last() {
            return outcomes.get(outcomes.size() - 1);
        }
    }

    interface Scenario {
        void run() throws Exception;
    }

    private final Map<String, Scenario> scenarios = new LinkedHashMap<>();

    void add(String name, Scenario scenario) {
        scenarios.put(name, scenario);
    }

    void run() {
        scenarios.forEach((name, scenario) -> {
            try {
                scenario.run();
            } catch (Throwable difference) {
                System.out.println("DIFFERS " + name + ": " + difference);
                difference.printStackTrace(System.out);
                System.exit(1);
            }
            System.out.println("ok " + name);
        });
        System.exit(0);
    }

    static void demand(boolean holds, Object said) {
        if (!holds) {
            throw new AssertionError(said);
        }
    }

    static void equal(Object straight, Object through) {
        demand(straight.equals(through), "\nstraight " + straight + "\nthrough  " + through);
    }

    /** Write an answer without what differs from one search to the next. */
    static String steady(Object answer) {
        return String.valueOf(answer).replaceAll("\"(took|_scroll_id|pit_id|scroll_id)\":(\"[^\"]*\"|\\d+),?", "");
    }

    /** Serve 502 to every request, as a proxy does whose engine is away, and return the address. */
    static String refusing() throws IOException {
        var body = "{\"error\":{\"type\":\"away\",\"reason\":\"not there\"},\"status\":502}".getBytes(StandardCharsets.UTF_8);
        var server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            exchange.getResponseHeaders().set("Content-Type", "application/json");
            exchange.sendResponseHeaders(502, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        return "http://127.0.0.1:" + server.getAddress().getPort();
    }

    /** Expect an error. */
    static Exception refused(Callable<?> ask) {
        try {
            ask.call();
        } catch (Exception error) {
            return error;
        }
        throw new AssertionError("it was not refused");
    }
}

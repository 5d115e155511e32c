import io.fabric8.kubernetes.api.model.ConfigMap;
import io.fabric8.kubernetes.api.model.ConfigMapBuilder;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientBuilder;
import io.fabric8.kubernetes.client.LocalPortForward;
import io.fabric8.kubernetes.client.Watcher;
import io.fabric8.kubernetes.client.WatcherException;
import io.fabric8.kubernetes.client.dsl.ContainerResource;
import io.fabric8.kubernetes.client.dsl.ExecWatch;
import io.fabric8.kubernetes.client.dsl.TtyExecErrorable;
import io.fabric8.kubernetes.client.dsl.TtyExecOutputErrorable;
import io.fabric8.kubernetes.client.dsl.TtyExecable;
import io.fabric8.kubernetes.client.http.HttpClient;
import io.fabric8.kubernetes.client.jdkhttp.JdkHttpClientFactory;
import io.fabric8.kubernetes.client.vertx.VertxHttpClientFactory;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.URI;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.logging.LogManager;

/**
 * Runs one session, or a few requests, with the fabric8 client; the exit code is that of the command.
 *
 * <pre>
 *   java-client [-n NAMESPACE] [-over vertx|jdk] exec|attach [-i] [-t] [-c NAME] POD [-- WORD…]
 *   java-client [-n NAMESPACE] [-over vertx|jdk] port-forward POD PORT
 *   java-client [-n NAMESPACE] [-over vertx|jdk] requests NAME
 * </pre>
 *
 * It runs in a pod, as the pod's service account. port-forward asks the port for "/" over HTTP and prints the answer.
 * requests creates a ConfigMap, lists it, watches until it is seen and deletes it, and says so.
 */
final class Client {
    private static final int COLUMNS = 101;
    private static final int ROWS = 31;

    private String namespace = "default";
    private String over = "vertx";
    private String container;
    private boolean stdin;
    private boolean tty;
    private final List<String> words = new ArrayList<>();
    private String[] command = {};

    public static void main(String[] arguments) {
        // What the client logs of itself, of a slow machine for example, is none of what a session says.
        LogManager.getLogManager().reset();
        int code = 1;
        try {
            code = new Client(arguments).run();
        } catch (Exception error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                System.err.println("error: " + cause.getMessage());
            }
        }
        System.out.flush();
        // The thread that reads standard input cannot be stopped: leave without it.
        Runtime.getRuntime().halt(code);
    }

    /** Reads what is asked for as kubectl reads it. */
    private Client(String[] arguments) {
        var given = new ArrayDeque<>(Arrays.asList(arguments));
        while (!given.isEmpty()) {
            String word = given.remove();
            switch (word) {
                case "-n": namespace = given.remove(); break;
                case "-over": over = given.remove(); break;
                case "-c": container = given.remove(); break;
                case "-i": stdin = true; break;
                case "-t": tty = true; break;
                case "--":
                    command = given.toArray(String[]::new);
                    given.clear();
                    break;
                default: words.add(word);
            }
        }
    }

    private int run() throws Exception {
        HttpClient.Factory http = over.equals("jdk") ? new JdkHttpClientFactory() : new VertxHttpClientFactory();
        try (var client = new KubernetesClientBuilder().withHttpClientFactory(http).build()) {
            switch (words.get(0)) {
                case "exec":
                case "attach": return session(client, words.get(0), words.get(1));
                case "port-forward": return forward(client, words.get(1), Integer.parseInt(words.get(2)));
                case "requests": return requests(client, words.get(1));
                default: throw new IllegalArgumentException("exec, attach, port-forward or requests, not " + words);
            }
        }
    }

    /** Passes everything on until the command has ended; an attached container says nothing of its end. */
    private int session(KubernetesClient client, String verb, String name) throws Exception {
        var pod = client.pods().inNamespace(namespace).withName(name);
        ContainerResource target = container == null ? pod : pod.inContainer(container);
        TtyExecOutputErrorable input = stdin ? target.redirectingInput() : target;
        TtyExecErrorable output = input.writingOutput(new FileOutputStream(FileDescriptor.out));
        TtyExecable both = tty ? output : output.writingError(new FileOutputStream(FileDescriptor.err));
        var ready = tty ? both.withTTY() : both;
        try (ExecWatch session = verb.equals("exec") ? ready.exec(command) : ready.attach()) {
            if (tty) {
                session.resize(COLUMNS, ROWS);
            }
            if (stdin) {
                daemon(() -> pass(new FileInputStream(FileDescriptor.in), session.getInput()));
            }
            Integer code = session.exitCode().get();
            if (code == null && verb.equals("exec")) {
                throw new IOException("the session ended without a status");
            }
            return code == null ? 0 : code;
        }
    }

    /** Passes on what there is as it comes; for its end this client's protocol has no word. */
    private static void pass(InputStream from, OutputStream to) throws IOException {
        byte[] chunk = new byte[1 << 15];
        for (int read = from.read(chunk); read >= 0; read = from.read(chunk)) {
            to.write(chunk, 0, read);
            to.flush();
        }
    }

    private interface Task {
        void run() throws IOException;
    }

    private static void daemon(Task task) {
        var thread = new Thread(() -> {
            try {
                task.run();
            } catch (IOException | RuntimeException over) {
                // The session has ended before its input.
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    private int forward(KubernetesClient client, String name, int port) throws IOException {
        try (LocalPortForward forward = client.pods().inNamespace(namespace).withName(name).portForward(port);
                InputStream answer = URI.create("http://127.0.0.1:" + forward.getLocalPort() + "/").toURL().openStream()) {
            answer.transferTo(System.out);
        }
        return 0;
    }

    private int requests(KubernetesClient client, String name) throws Exception {
        var all = client.configMaps().inNamespace(namespace);
        all.resource(new ConfigMapBuilder().withNewMetadata().withName(name).endMetadata().build()).create();
        System.out.println("created");
        for (ConfigMap found : all.withField("metadata.name", name).list().getItems()) {
            System.out.println(found.getMetadata().getName().equals(name) ? "listed" : "another");
        }
        var seen = new CompletableFuture<Void>();
        try (var watch = all.withField("metadata.name", name).watch(until(seen))) {
            seen.get();
        }
        System.out.println("watched");
        all.withName(name).delete();
        System.out.println("deleted");
        return 0;
    }

    /** Completes once something is added. */
    private static Watcher<ConfigMap> until(CompletableFuture<Void> seen) {
        return new Watcher<>() {
            @Override
            public void eventReceived(Action action, ConfigMap map) {
                if (action == Action.ADDED) {
                    seen.complete(null);
                }
            }

            @Override
            public void onClose(WatcherException cause) {
                seen.completeExceptionally(cause);
            }
        };
    }
}

package interop;

import io.spiffe.bundle.BundleSource;
import io.spiffe.bundle.jwtbundle.JwtBundle;
import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.provider.SpiffeSslContextFactory.SslContextOptions;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.Watcher;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Context;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.InetAddress;
import java.security.cert.CertificateParsingException;
import java.security.cert.X509Certificate;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

/** A workload that uses java-spiffe. The commands are the same for all languages: see ../README.md. */
public final class Client {
    public static void main(String[] args) {
        try {
            run(args);
            System.exit(0);
        } catch (Exception e) {
            // java-spiffe's own threads would keep a failed client alive.
            e.printStackTrace();
            System.exit(1);
        }
    }

    private static void run(String[] args) throws Exception {
        switch (args[0]) {
            case "fetch" -> {
                try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
                    show(client.fetchX509Context().getDefaultSvid());
                }
            }
            case "watch" -> watch(Integer.parseInt(args[1]));
            case "serve" -> serve();
            case "connect" -> connect(args[1], args[2]);
            case "jwt" -> {
                try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
                    System.out.println(client.fetchJwtSvid(args[1]).getToken());
                }
            }
            case "validate" -> {
                try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
                    BundleSource<JwtBundle> bundles = client.fetchJwtBundles();
                    System.out.println(JwtSvid.parseAndValidate(args[2], bundles, Set.of(args[1])).getSpiffeId());
                }
            }
            case "agent-validate" -> {
                try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
                    System.out.println(client.validateJwtSvid(args[2], args[1]).getSpiffeId());
                }
            }
            default -> throw new IllegalArgumentException("no command " + args[0]);
        }
    }

    private static void show(X509Svid svid) {
        X509Certificate leaf = svid.getLeaf();
        System.out.printf("{\"id\": \"%s\", \"serial\": \"%s\", \"not_after\": %d}%n",
                svid.getSpiffeId(), leaf.getSerialNumber(), leaf.getNotAfter().getTime() / 1000);
    }

    private static void watch(int n) throws Exception {
        CountDownLatch left = new CountDownLatch(n);
        Set<Object> seen = new HashSet<>();
        try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
            client.watchX509Context(new Watcher<X509Context>() {
                @Override
                public void onUpdate(X509Context context) {
                    X509Svid svid = context.getDefaultSvid();
                    if (left.getCount() > 0 && seen.add(svid.getLeaf().getSerialNumber())) {
                        show(svid);
                        left.countDown();
                    }
                }

                @Override
                public void onError(Throwable error) {
                    System.err.println("java: watch: " + error);
                }
            });
            if (!left.await(4, TimeUnit.MINUTES)) {
                throw new IllegalStateException("no rotation in time");
            }
        }
    }

    /** Answers each line of a caller with that caller's SPIFFE ID, until stdin closes. */
    private static void serve() throws Exception {
        SSLContext ssl = SpiffeSslContextFactory.getSslContext(
                SslContextOptions.builder().x509Source(DefaultX509Source.newSource()).acceptAnySpiffeId().build());
        SSLServerSocket server = (SSLServerSocket) ssl.getServerSocketFactory()
                .createServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
        server.setNeedClientAuth(true);
        System.out.println("127.0.0.1:" + server.getLocalPort());
        Thread stop = new Thread(() -> {
            try {
                while (System.in.read() >= 0) { }
            } catch (java.io.IOException ignored) {
                // closed is closed
            }
            System.exit(0);
        });
        stop.setDaemon(true);
        stop.start();
        while (true) {
            try (SSLSocket socket = (SSLSocket) server.accept()) {
                new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine();
                X509Certificate leaf = (X509Certificate) socket.getSession().getPeerCertificates()[0];
                new PrintStream(socket.getOutputStream(), true).println(uri(leaf));
            } catch (java.io.IOException e) {
                System.err.println("java: serve: " + e);
            }
        }
    }

    private static void connect(String address, String server) throws Exception {
        SSLContext ssl = SpiffeSslContextFactory.getSslContext(SslContextOptions.builder()
                .x509Source(DefaultX509Source.newSource())
                .acceptedSpiffeIdsSupplier(() -> Set.of(SpiffeId.parse(server)))
                .build());
        int colon = address.lastIndexOf(':');
        try (SSLSocket socket = (SSLSocket) ssl.getSocketFactory()
                .createSocket(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)))) {
            socket.startHandshake();
            new PrintStream(socket.getOutputStream(), true).println("who am I");
            System.out.println(new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine());
        }
    }

    private static String uri(X509Certificate leaf) {
        try {
            for (List<?> name : leaf.getSubjectAlternativeNames()) {
                if (Integer.valueOf(6).equals(name.get(0))) {
                    return (String) name.get(1);
                }
            }
        } catch (CertificateParsingException e) {
            throw new IllegalStateException(e);
        }
        throw new IllegalStateException("the caller has no URI SAN");
    }
}

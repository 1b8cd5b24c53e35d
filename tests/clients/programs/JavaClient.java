import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** java.net.http: {@code java JavaClient.java URL FILE…} prints each response's status and JSON. */
class JavaClient {
    static final List<String> WAYS = List.of("java form", "java body", "java put", "java chunks");
    static final String BOUNDARY = "===17==="; // such as much copied classes use, without quotes

    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient(); // offers HTTP/2 with each request
        List<String> answers = new ArrayList<>();
        for (String way : WAYS) {
            List<String> each = new ArrayList<>();
            for (String name : List.of(arguments).subList(1, arguments.length)) {
                HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(arguments[0]));
                send(request, way, Path.of(name));
                var response = client.send(request.build(), BodyHandlers.ofString());
                each.add("[" + response.statusCode() + ", " + response.body() + "]");
            }
            answers.add("\"" + way + "\": " + each);
        }
        System.out.println("{" + String.join(", ", answers) + "}");
    }

    static void send(HttpRequest.Builder request, String way, Path path) throws IOException {
        switch (way) {
            case "java form" -> request.POST(form(path))
                .header("Content-Type", "multipart/form-data; boundary=" + BOUNDARY);
            case "java body" -> request.POST(BodyPublishers.ofFile(path));
            case "java put" -> request.PUT(BodyPublishers.ofFile(path));
            case "java chunks" -> request.POST(BodyPublishers.ofInputStream(() -> open(path)));
        }
    }

    static BodyPublisher form(Path path) throws IOException {
        String head = "--" + BOUNDARY + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\""
            + path.getFileName() + "\"\r\n\r\n";
        String tail = "\r\n--" + BOUNDARY + "--\r\n";
        List<byte[]> parts = List.of(head.getBytes(), Files.readAllBytes(path), tail.getBytes());
        return BodyPublishers.ofByteArrays(parts); // of unknown length: in chunks
    }

    static java.io.InputStream open(Path path) {
        try {
            return Files.newInputStream(path);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}

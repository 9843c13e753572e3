package greeting;

import java.nio.file.Files;
import java.nio.file.Path;

/** Greets whom the payload names, writes a file, and ends as the payload says: with a code, or never. */
public final class Main {
    public static void main(String[] arguments) throws Exception {
        Payload payload = new Payload(Files.readString(Path.of(System.getenv("payloadfile"))));
        System.out.println("hello " + payload.value("name") + " from java");
        System.out.println("cwd " + Path.of("").toAbsolutePath());
        Files.writeString(Path.of("made by java ü.txt"), "by java\n");
        if (!payload.value("wait").isEmpty()) {
            System.out.print("waiting");
            Thread.sleep(600_000);
        }
        System.exit(Integer.parseInt(payload.value("exit")));
    }
}

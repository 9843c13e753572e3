package greeting;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** A flat payload. */
record Payload(String text) {
    String value(String name) {
        Matcher found = Pattern.compile('"' + name + "\": *\"?([^\",}]*)").matcher(text);
        return found.find() ? found.group(1) : "";
    }
}

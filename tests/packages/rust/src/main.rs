//! Greets whom the payload names, writes a file, and ends as the payload says: with a code, or never.

use std::io::Write;
use std::{env, fs, process, thread, time};

fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let key = format!("\"{name}\":");
    match text.find(&key) {
        Some(at) => text[at + key.len()..].split(|end| end == ',' || end == '}').next().unwrap_or("").trim().trim_matches('"'),
        None => "",
    }
}

fn main() {
    let text = fs::read_to_string(env::var("payloadfile").expect("a payload file")).expect("a payload");
    println!("hello {} from rust", value(&text, "name"));
    println!("cwd {}", env::current_dir().expect("a folder").display());
    fs::write("made by rust ü.txt", "by rust\n").expect("a file");
    if !value(&text, "wait").is_empty() {
        print!("waiting");
        std::io::stdout().flush().expect("somebody who reads");
        thread::sleep(time::Duration::from_secs(600));
    }
    process::exit(value(&text, "exit").parse().unwrap_or(0));
}

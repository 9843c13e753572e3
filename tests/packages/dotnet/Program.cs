// Greets whom the payload names, writes a file, and ends as the payload says: with a code, or never.
using System;
using System.IO;
using System.Text.Json;
using System.Threading;

var text = File.ReadAllText(Environment.GetEnvironmentVariable("payloadfile")!);
var payload = JsonDocument.Parse(text).RootElement;
Console.WriteLine($"hello {payload.GetProperty("name")} from dotnet");
Console.WriteLine($"cwd {Directory.GetCurrentDirectory()}");
File.WriteAllText("made by dotnet ü.txt", "by dotnet\n");
if (payload.TryGetProperty("wait", out _))
{
    Console.Write("waiting");
    Thread.Sleep(600_000);
}
return payload.GetProperty("exit").GetInt32();

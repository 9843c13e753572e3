<?php
// Greets whom the payload names, writes a file, and ends as the payload says: with a code, or never.
$payload = json_decode(file_get_contents(getenv('payloadfile')), true);
echo "hello {$payload['name']} from php\n";
echo 'cwd ' . getcwd() . "\n";
file_put_contents('made by php ü.txt', "by php\n");
if (isset($payload['wait'])) {
    echo 'waiting';
    sleep(600);
}
exit((int) $payload['exit']);

#!/bin/sh
# Greets whom the payload names, writes a file, and ends as the payload says: with a code, or never.
text=$(cat "$payloadfile")
value() { printf '%s' "$text" | sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p"; }
echo "hello $(value name) from shell"
echo "cwd $PWD"
echo "by shell" > "made by shell ü.txt"
[ -z "$(value wait)" ] || { printf waiting; sleep 600; }
exit "$(value exit)"

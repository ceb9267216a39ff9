#!/bin/sh
# Compile the client and its sample with Mono into the folder that is given (default: build).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-build}
mkdir -p "$out"
mcs -langversion:6 -warn:4 -warnaserror -target:library -doc:"$out/MusedropClient.xml" \
    -out:"$out/MusedropClient.dll" "$here"/MusedropClient/*.cs
mcs -langversion:6 -warn:4 -warnaserror -r:"$out/MusedropClient.dll" -out:"$out/MusedropSample.exe" "$here"/Sample/*.cs
mcs -langversion:6 -warn:4 -warnaserror -target:library -r:"$out/MusedropClient.dll" -out:"$out/MuseTalkService.dll" \
    "$here"/MuseTalkService/*.cs

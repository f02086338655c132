#!/usr/bin/env bash
# Carries a folder to a machine that takes only files of a limited size, such as one without a network.
#
#   launch/in_pieces.sh pack FOLDER PIECES [SIZE]   writes FOLDER into the files PIECES/piece.000, … and
#                                                   PIECES/SHA256SUMS; SIZE is theirs (default: 60M)
#   launch/in_pieces.sh unpack PIECES FOLDER        checks all of these files, and writes FOLDER
set -euo pipefail

fail() {
  echo "error: $*" >&2
  exit 2
}

usage="usage: launch/in_pieces.sh pack FOLDER PIECES [SIZE], or unpack PIECES FOLDER"
case "${1-}:$#" in
  pack:[34])
    folder=$2 pieces=$3 size=${4:-60M}
    [ -d "$folder" ] || fail "$folder: is no folder"
    [ ! -e "$pieces" ] || fail "$pieces: exists; name another folder"
    mkdir -p "$(dirname "$pieces")"
    made=$(mktemp -d "$pieces.XXXXXX")
    trap 'rm -rf "$made"' EXIT
    tar -C "$folder" -c . | split --bytes="$size" --numeric-suffixes --suffix-length=3 - "$made/piece."
    (cd "$made" && sha256sum piece.* > SHA256SUMS)
    chmod 755 "$made"
    mv -T "$made" "$pieces"
    echo "$(($(find "$pieces" -name 'piece.*' | wc -l))) pieces of at most $size in $pieces"
    ;;
  unpack:3)
    pieces=$2 folder=$3
    [ -f "$pieces/SHA256SUMS" ] || fail "$pieces/SHA256SUMS: is missing"
    [ ! -e "$folder" ] || fail "$folder: exists; name another folder"
    (cd "$pieces" && sha256sum --check --quiet SHA256SUMS) || fail "$pieces: pieces are missing or damaged"
    mkdir -p "$(dirname "$folder")"
    made=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$made"' EXIT
    cut -c 67- "$pieces/SHA256SUMS" | (cd "$pieces" && xargs cat) | tar -C "$made" -x
    chmod 755 "$made"
    mv -T "$made" "$folder"
    echo "$folder: written"
    ;;
  *)
    fail "$usage"
    ;;
esac

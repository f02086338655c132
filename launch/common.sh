# To be sourced: what the launchers share.
#
# A launcher's --help is the comment at its top. It sets `dry_run` to yes or no and calls `perform` for
# every command that does something, so that --dry-run prints the very words that would be run.
# Written for the bash 3.2 of macOS too: hence ${a[@]+"${a[@]}"} for arrays that may be empty.

dry_run=no

fail() {
  echo "error: $*" >&2
  exit 1
}

say() { echo "$*" >&2; } # standard output is for logs, states and the commands of --dry-run

usage() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$1"; }

# The arguments as one line that a shell reads back as the same arguments.
shell_words() {
  local word line="" quoted single="'" escaped="'\\''"
  for word in "$@"; do
    case $word in
      "" | *[!A-Za-z0-9_./:=@%+,-]*) quoted=$single${word//$single/"$escaped"}$single ;;
      *) quoted=$word ;;
    esac
    line+="${line:+ }$quoted"
  done
  printf '%s\n' "$line"
}

# Runs a command, or only prints it.
perform() {
  if [ "$dry_run" = yes ]; then
    shell_words "$@"
  else
    "$@"
  fi
}

# unknown_option GIVEN KNOWN...: an error that names the known option with the fewest letters to change.
unknown_option() {
  local given=$1
  shift
  local nearest
  nearest=$(printf '%s\n' "$@" | awk -v given="${given%%=*}" '
    function least(a, b) { return a < b ? a : b }
    function distance(a, b,    i, j, row, before, kept) {
      for (j = 0; j <= length(b); j++) row[j] = j
      for (i = 1; i <= length(a); i++) {
        before = row[0]
        row[0] = i
        for (j = 1; j <= length(b); j++) {
          kept = row[j]
          row[j] = least(least(row[j], row[j - 1]) + 1,
            before + (substr(a, i, 1) != substr(b, j, 1)))
          before = kept
        }
      }
      return row[length(b)]
    }
    { apart = distance(given, $0) }
    NR == 1 || apart < fewest { fewest = apart; nearest = $0 }
    END { if (fewest <= length(given) / 2) print nearest }')
  if [ -n "$nearest" ]; then
    fail "${given%%=*}: no such option here; did you mean $nearest? --help says what there is"
  fi
  fail "${given%%=*}: no such option here; --help says what there is"
}

# must_be_known GIVEN KNOWN...: an error unless GIVEN is one of them. A field of the config, --config.FIELD,
# counts as --config.
must_be_known() {
  local option=${1%%=*}
  case $option in
    --config.* | --noconfig.*) option=--config ;;
    -h) option=--help ;;
  esac
  case " ${*:2} " in
    *" $option "*) ;;
    *) unknown_option "$@" ;;
  esac
}

whole_number() { # NAME VALUE LEAST
  case $2 in
    "" | *[!0-9]*) fail "$1=$2: must be a whole number, $3 or more" ;;
  esac
  [ "$2" -ge "$3" ] || fail "$1=$2: must be $3 or more"
}

seconds() { # NAME VALUE
  [[ $2 =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "$1=$2: must be a number of seconds"
}

# The exact version of jax that requirements.txt names.
pinned_jax() {
  local version
  version=$(sed -n 's/^jax==//p' requirements.txt)
  [ -n "$version" ] || fail "requirements.txt: names no version of jax (a line jax==VERSION)"
  echo "$version"
}

# gcsfs is named in a comment there, since only runs that use buckets need it.
pinned_gcsfs() {
  local pinned
  pinned=$(sed -n 's/.*\(gcsfs==[0-9.]*[0-9]\).*/\1/p' requirements.txt | head -n 1)
  [ -n "$pinned" ] || fail "requirements.txt: names no version of gcsfs (gcsfs==VERSION)"
  echo "$pinned"
}

# US dollars for a TPU chip and hour: on demand, in the cheapest US region, list prices of 2025. They drift,
# and regions differ: this is for the order of magnitude, the price list counts. Nothing for unknown types.
chip_price() { # of an accelerator type of Cloud TPU or of GKE
  case $1 in
    v2-*) echo 1.13 ;;
    v3-*) echo 2.00 ;;
    v4-* | tpu-v4-*) echo 3.22 ;;
    v5litepod-* | tpu-v5-lite-*) echo 1.20 ;;
    v5p-* | tpu-v5p-*) echo 4.20 ;;
    v6e-* | tpu-v6e-*) echo 2.70 ;;
  esac
}

cost_of() { # PRICE CHIPS, in words
  if [ -n "$1" ]; then
    awk -v price="$1" -v chips="$2" 'BEGIN { printf "about $%.1f an hour on demand ", chips * price }'
    echo "(list price of 2025 in the US; prices drift)"
  else
    echo "what the price list says (https://cloud.google.com/tpu/pricing, /compute/gpus-pricing)"
  fi
}

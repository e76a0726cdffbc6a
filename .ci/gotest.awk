# Shortens the output of `go test -v`: one line for a package that passed, the whole output of one that
# failed, and at the end the skipped tests and a summary. Exits with 1 if a package failed or none ran.
function flush_all() { for (i = 1; i <= n; i++) print lines[i] }
{ lines[++n] = $0 }
/^[ \t]*--- SKIP: / { skipped[++skips] = $3; reason[skips] = last }
/^[ \t]*--- (PASS|FAIL): / { tests++; if ($2 == "FAIL:") failures[++failed] = $3 }
/^[ \t]+[^ ]+_test\.go:[0-9]+: / { last = $0; sub(/^[ \t]+/, "", last) }
/^(ok|FAIL)[ \t]+[^ \t]+[ \t]/ || /^(\?|FAIL)[ \t].*\[(no test files|build failed|setup failed)\]/ || /^[ \t]+[^ \t]+[ \t]+coverage:/ {
  if ($1 == "FAIL") { flush_all(); broken[++bad] = $2 }
  else if ($1 == "ok") { print; good++ }
  n = 0; fflush(); next
}
END {
  if (n) flush_all()
  for (i = 1; i <= skips; i++) printf "skipped: %s (%s)\n", skipped[i], reason[i]
  for (i = 1; i <= failed; i++) printf "failed:  %s\n", failures[i]
  for (i = 1; i <= bad; i++) printf "FAIL     %s\n", broken[i]
  printf "%s: %d packages ok, %d failed; %d tests run, %d failed, %d skipped\n", (bad || !good) ? "FAIL" : "PASS", good, bad, tests, failed, skips
  exit (bad || !good)
}

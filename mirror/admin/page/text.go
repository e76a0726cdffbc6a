package page

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
)

// size is api.Size, with the same minus sign (U+2212) as [thousands].
func size(n int64) string { return strings.Replace(api.Size(n), "-", "−", 1) }

// sizeOr is like size, but returns "unknown" for a negative number.
func sizeOr(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return size(n)
}

// ago returns the time from t to now as text, such as 5 min ago.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return api.About(now.Sub(t)) + " ago"
}

// stamp formats a time for programs.
func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339) }

// clock formats a time for people.
func clock(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 UTC") }

func percent(ratio float64) string { return fmt.Sprintf("%.1f %%", 100*ratio) }

// count returns a number and its noun: singular if n is 1, otherwise plural.
func count(n int, singular, plural string) string {
	if n == 1 {
		return "1 " + singular
	}
	return thousands(int64(n)) + " " + plural
}

// thousands groups the digits of a number by spaces that do not break.
func thousands(n int64) string {
	text := fmt.Sprintf("%d", n)
	sign := ""
	if n < 0 {
		sign, text = "−", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return sign + text
}

// short shortens a digest to 12 digits.
func short(d digest.Digest) string {
	algorithm, hex, ok := strings.Cut(string(d), ":")
	if !ok || len(hex) <= 12 {
		return string(d)
	}
	return algorithm + ":" + hex[:12]
}

// imageName returns the name of a repository with a tag or a digest.
func imageName(upstream, repository, reference string) string {
	name := repository
	if upstream != "" {
		name = upstream + "/" + repository
	}
	switch {
	case reference == "":
		return name
	case strings.Contains(reference, ":"):
		return name + "@" + reference
	}
	return name + ":" + reference
}

// client returns the user and the address of a client as text.
func client(e api.LiveEntry) string {
	switch {
	case e.Client == "":
		return e.User
	case e.User == "":
		return e.Client
	}
	return e.User + "@" + e.Client
}

// address returns a path with parameters. In the slice pairs, a value follows each name. address
// leaves out parameters with empty values.
func address(path string, pairs ...string) string {
	params := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			params.Set(pairs[i], pairs[i+1])
		}
	}
	if len(params) == 0 {
		return path
	}
	return path + "?" + params.Encode()
}

// share is a part of a whole, such as the bytes from one source.
type share struct {
	Name  string
	Value int64
	// From is where the share begins in a bar, and Width is its size, in percent of the whole.
	From, Width float64
}

// sourceNames are the sources of bytes and the names that pages show for them, in the order of
// their cost.
var sourceNames = []struct{ key, name string }{
	{"memory", "memory"}, {"disk", "disk"}, {"cache", "cache"}, {"stale", "stale"}, {"updating", "updating"}, {"prefetch", "prefetch"}, {"flight", "shared"}, {"member", "member"}, {"bucket", "bucket"}, {"origin", "origin"}, {"direct", "uncached"},
}

// shares returns the share of each source in the sum. It leaves out sources with 0. The sources
// that are not in sourceNames have one share together, with the name other.
func shares(by map[string]int64) (all []share) {
	var whole int64
	for _, n := range by {
		whole += max(n, 0)
	}
	if whole == 0 {
		return nil
	}
	add := func(name string, n int64) {
		if n > 0 {
			all = append(all, share{Name: name, Value: n, Width: 100 * float64(n) / float64(whole)})
		}
	}
	known := map[string]bool{}
	for _, s := range sourceNames {
		add(s.name, by[s.key])
		known[s.key] = true
	}
	var others int64
	for key, n := range by {
		if !known[key] {
			others += max(n, 0)
		}
	}
	add("other", others)
	at := 0.0
	for i := range all {
		all[i].From = at
		at += all[i].Width
	}
	return all
}

// sharesText returns the three largest shares as text.
func sharesText(all []share) string {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b share) int { return cmp.Compare(b.Width, a.Width) })
	var words []string
	for _, s := range sorted[:min(len(sorted), 3)] {
		words = append(words, fmt.Sprintf("%s %.0f %%", s.Name, s.Width))
	}
	return strings.Join(words, ", ")
}

func number(x float64) string { return fmt.Sprintf("%.2f", x) }

// columnName returns the heading of a column, and columnClass the CSS class of its cells. A # at
// the start of label marks a column of numbers, and is not part of the heading.
func columnName(label string) string { return strings.TrimPrefix(label, "#") }

func columnClass(label string) string {
	if strings.HasPrefix(label, "#") {
		return "number"
	}
	return "text"
}

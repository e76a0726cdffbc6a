package ctl

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

// explainedPast writes the last pull of an image, the verdict on its last checked push, and its
// last misses.
func explainedPast(w io.Writer, e api.Explanation) {
	last := "dray remembers no pull of it."
	if p := e.LastPull; p != nil {
		last = lastPullText(*p, e.Time)
	}
	section(w, "Last pull", last)
	if v := e.Verdict; v != nil {
		section(w, "Last push", verdictText(*v, e.Time)...)
	}
	if len(e.Misses.Items) == 0 {
		section(w, "Last misses", fmt.Sprintf("In the last %s, each request for it was answered from the cache, or there was none.", api.About(e.Time.Sub(e.Misses.Since))))
		return
	}
	section(w, "Last misses")
	for _, m := range e.Misses.Items {
		for _, line := range missText(m, e.Time) {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
}

// explainedRequest writes why a request was no cache hit, or why it failed.
func explainedRequest(w io.Writer, all api.Misses) {
	now := time.Now()
	if len(all.Items) == 0 {
		fmt.Fprintf(w, "dray remembers no such request. Since %s, it has remembered each one that was no cache hit or failed, except for those that clients send all the time.\n", day(all.Since))
		return
	}
	for _, m := range all.Items {
		for _, line := range missText(m, now) {
			fmt.Fprintln(w, line)
		}
	}
}

func lastPullText(p api.LastPull, now time.Time) string {
	when := api.About(now.Sub(p.At)) + " ago"
	if p.Active {
		when = "now"
	}
	text := fmt.Sprintf("%s, by %s with %s: %s", when, clientText(p.User, p.Client), cmp.Or(p.Agent, "an unnamed program"), size(p.Bytes))
	if from := sourcesText(p.Sources); from != "" {
		text += " from " + from
	}
	if p.Failures > 0 {
		text += fmt.Sprintf("; %s failed", counted(p.Failures, "request"))
	}
	return text + "."
}

func clientText(user, address string) string {
	if user == "" {
		return address
	}
	return user + "@" + address
}

// sourcesText lists sources. The source that sent the most bytes is first.
func sourcesText(sources map[string]int64) string {
	var names []string
	for name, n := range sources {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(sources[b], sources[a]), strings.Compare(a, b)) })
	return strings.Join(names, ", ")
}

func verdictText(v api.Verdict, now time.Time) []string {
	outcome := map[string]string{"pass": "passed", "reject": "was rejected by", "unknown": "could not be judged by"}[v.Outcome]
	by := v.User
	if by == "" {
		by = "a client without credentials"
	}
	lines := []string{fmt.Sprintf("A push by %s %s the checks %s, %s ago.", by, cmp.Or(outcome, v.Outcome), v.Checks, api.About(now.Sub(v.At)))}
	if v.Message != "" {
		lines = append(lines, strings.Split(v.Message, "\n")...)
	}
	if v.Report != "" {
		lines = append(lines, "Report: "+v.Report+" on a listener that takes pushes")
	}
	return lines
}

// missText describes a miss or a failed request: a line about the request, one about the cause of
// the miss, one for each request to an upstream, and others for what only some misses have.
func missText(m api.Miss, now time.Time) []string {
	what := m.Reference
	if d, err := oci.ParseDigest(what); err == nil {
		what = oci.Short(d)
	}
	if what == "" {
		what = m.Kind
	}
	head := fmt.Sprintf("%s  %s %s %s/%s %s for %s: %d after %s", day(m.At), m.Method, m.Kind, m.Upstream, m.Repository, what, clientText(m.User, m.Client), m.Status, seconds(m.Seconds))
	if m.Source != "" {
		head += ", from " + m.Source
	}
	lines := []string{head + "  [" + m.RequestID + "]"}
	add := func(format string, args ...any) { lines = append(lines, "  "+fmt.Sprintf(format, args...)) }
	if m.Cause != "" {
		add("%s", causeText(m, now))
	}
	if m.InsteadOf != "" {
		add("%s answered in place of %s.", m.Upstream, m.InsteadOf)
	}
	if m.Joined {
		add("It shared what another request asked.")
	}
	for _, q := range m.Asked {
		answer := fmt.Sprintf("%d, %s in %s", q.Status, size(q.Bytes), seconds(q.Seconds))
		if q.Error != "" {
			answer = fmt.Sprintf("no answer in %s: %s", seconds(q.Seconds), q.Error)
		}
		add("asked %s: %s %s: %s", q.Host, q.Method, q.Path, answer)
	}
	if m.More > 0 {
		add("and %s more", counted(m.More, "request"))
	}
	if m.Stale != "" {
		add("The client got an old answer, because the upstream failed: %s", m.Stale)
	}
	if m.Error != "" {
		add("The error: %s", m.Error)
	}
	return lines
}

func seconds(s float64) string { return fmt.Sprintf("%.3g s", s) }

// causeText says in a sentence why the request was no cache hit.
func causeText(m api.Miss, now time.Time) string {
	since := "earlier"
	if !m.Since.IsZero() {
		since = api.About(m.At.Sub(m.Since)) + " before"
	}
	switch m.Cause {
	case api.MissNew:
		return "dray knew nothing of it in this repository: nobody had asked for it, or the facts about it were lost."
	case api.MissExpired:
		return "The last answer of the upstream about it, " + since + ", was not believed any more."
	case api.MissEvicted:
		return "It had been evicted " + since + ", to make room."
	case api.MissRemoved:
		return "It had been removed " + since + ": by an operator, or because nothing needed it."
	case api.MissDamaged:
		return "It had been removed " + since + ", because its bytes on disk were wrong."
	case api.MissLost:
		return "It was not here, although the upstream had confirmed it once: it was removed before the last start of dray or long ago, or only another mirror on the same Redis held it."
	case api.MissArriving:
		return "It was on its way already, for another request or ahead of this one."
	case api.MissUncached:
		return "The cache could not store it, so it was passed through."
	case api.MissUnconfirmed:
		return "Its bytes were here, and the upstream had to confirm that this repository has it."
	case api.MissAbsent:
		if m.Since.IsZero() {
			return "The upstream had said that there is no such thing, which is believed for a while."
		}
		return "The upstream had said " + since + " that there is no such thing, which is believed for a while."
	case api.MissRefused:
		return "It was refused before dray looked for anything."
	}
	return string(m.Cause)
}

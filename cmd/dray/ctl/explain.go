package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

func explainCommand(in Options) *cobra.Command {
	params := url.Values{}
	var listener, as string
	var accept []string
	var f warmFlags
	var request string
	cmd := in.operate(&cobra.Command{
		Use:   "explain NAME",
		Short: "Explain what a pull of an image would do, and what a running dray knows about it",
		Long: `explain takes the name of an image as clients write it, and prints

  the upstream and repository of the image, and why dray chooses them
  the rights of a caller there, and the rule that decides
  the digest of the tag, when the upstream stated it, and how long dray uses it
  the place of each part of the image: in memory, on disk, in the queue, nowhere
  the requests to the upstream that the next pull would cost, and their bytes
  whether dray sends requests to the upstream now, its rates and its quota
  the last pull, the reasons for the last cache misses, and the verdict on the
  last push

With --request instead of NAME, explain prints why one request failed or was no
cache hit, which requests dray sent to the upstream for it, and how long they
took. The ID of a request is in the answer (X-Request-Id), in the text of server
errors, and in the log. dray remembers some thousands of such requests until it
stops.

explain sends no request to the upstream, does not count as a use of the image,
and changes nothing that dray stores. It predicts the requests for a client that
has no part of the image and sends GET. It assumes that the upstream answers,
that its earlier answers are still true, and that no other client pulls the
image meanwhile. For an image with several platforms, it predicts the pull of
one: Linux on the processor of this machine, unless --platform names others. It
counts no requests for tokens and lists of referrers, and no redirects.`,
		Example: "  dray explain docker.io/library/alpine:3\n  dray explain --as ci team/app:1.2 --platform linux/arm64\n  dray explain --request 5XQMZK2E3YQXHTA5C6ZB6K7B4N",
		Args: func(cmd *cobra.Command, args []string) error {
			if request != "" {
				return usage.NoArguments(cmd, args)
			}
			return usage.Between(1, 1)(cmd, args)
		},
	}, func(ctx context.Context, o *operator, args []string) error {
		if request != "" {
			return show(ctx, o, "misses", url.Values{"request": {request}}, explainedRequest)
		}
		on, err := f.targets()
		if err != nil {
			return err
		}
		params.Set("name", args[0])
		for name, value := range map[string]string{"listener": listener, "as": as} {
			if value != "" {
				params.Set(name, value)
			}
		}
		params["platform"], params["accept"] = on, accept
		return show(ctx, o, "explain", params, explained)
	})
	cmd.Flags().StringVar(&as, "as", "", "user whose rights explain prints (default: a client without credentials)")
	cmd.Flags().StringVar(&request, "request", "", "ID of a request to explain, instead of NAME")
	cmd.Flags().StringVar(&listener, "listener", "", "listener that the client uses (default: the first one that serves the name)")
	cmd.Flags().StringSliceVar(&f.platforms, "platform", nil, "platforms of the client, such as linux/arm64, or all (default: linux on this machine's processor)")
	cmd.Flags().StringSliceVar(&accept, "accept", nil, "media types that the client accepts (default: those of containerd)")
	return cmd
}

// Explained writes an explanation in the form that the command "dray explain" prints.
func Explained(w io.Writer, e api.Explanation) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	explained(table, e)
	return table.Flush()
}

// explained writes an explanation in sentences, and its lists as tables.
func explained(w io.Writer, e api.Explanation) {
	fmt.Fprintln(w, e.Name)
	section(w, "Route", routeText(e.Route))
	explainedRights(w, e.Caller)
	if e.Tag != nil {
		section(w, "Tag", tagText(*e.Tag, e.Time))
	}
	explainedParts(w, e)
	explainedPull(w, e)
	if e.Upstream != nil {
		explainedUpstream(w, e)
	}
	explainedPast(w, e)
}

func section(w io.Writer, title string, sentences ...string) {
	fmt.Fprintf(w, "\n%s\n", title)
	for _, s := range sentences {
		fmt.Fprintf(w, "  %s\n", s)
	}
}

func routeText(r api.ExplainedRoute) string {
	why := "nothing in the name selects another upstream"
	switch r.Rule {
	case "prefix":
		why = fmt.Sprintf("the name begins with %s, a prefix of the upstream", r.Word)
	case "host":
		why = fmt.Sprintf("the name begins with %s, a host of the upstream", r.Word)
	case "upstream":
		why = "the name begins with the name of the upstream"
	}
	text := fmt.Sprintf("Through the listener %s, this is the repository %s of the upstream %s (%s), because %s.", r.Listener, r.Repository, r.Upstream, r.Registry, why)
	if r.Remote != r.Repository {
		text += fmt.Sprintf(" The registry calls it %s.", r.Remote)
	}
	if r.BuildCaches {
		text += " It stores the build caches that are pushed under the name."
	}
	if r.Refused != "" {
		text += " Clients get an error: " + r.Refused + "."
	}
	return text
}

func explainedRights(w io.Writer, c api.ExplainedCaller) {
	who := "a client without credentials"
	if c.User != "" {
		who = "the user " + c.User
	}
	section(w, "Rights of "+who+" in "+c.Repository)
	for _, r := range c.Rights {
		state := "denied"
		switch {
		case r.OnlyHere:
			state = "allowed here"
		case r.Allowed:
			state = "allowed"
		}
		why := r.Why
		if r.Rule != nil {
			why = fmt.Sprintf("by rule %d of auth", *r.Rule+1)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", r.Action, state, why)
	}
}

func tagText(t api.ExplainedTag, now time.Time) string {
	until := func(at time.Time) string { return fmt.Sprintf("for %s more", api.About(at.Sub(now))) }
	said := fmt.Sprintf("It means %s, as the upstream said %s ago.", t.Digest, api.About(now.Sub(t.Asked)))
	old := " If the upstream fails, it is not served any more."
	if t.Stale.After(now) {
		old = " If the upstream fails, it is served " + until(t.Stale) + "."
	}
	switch t.State {
	case api.TagHosted:
		if t.Digest == "" {
			return "dray stores no such tag."
		}
		return fmt.Sprintf("It means %s, which is stored in dray alone.", t.Digest)
	case api.TagQueued:
		return fmt.Sprintf("It means %s, a push that has not been forwarded to the upstream yet.", t.Digest)
	case api.TagFresh:
		return said + " dray serves that without a question " + until(t.Fresh) + "." + old
	case api.TagUpdating:
		return said + " dray serves that at once and asks the upstream in the background, " + until(t.Updating) + "." + old
	case api.TagStale:
		return said + " That is not fresh any more, so a client waits for the upstream." + old
	case api.TagLost:
		return said + " Its manifest is not here any more, so a client waits for the upstream."
	case api.TagAbsent:
		return fmt.Sprintf("The upstream said %s ago that there is no such tag (%s). dray repeats that %s.", api.About(now.Sub(t.Asked)), t.Reason, until(t.Absent))
	case api.TagExpired:
		if t.Digest == "" {
			return fmt.Sprintf("The upstream said %s ago that there is no such tag. dray does not rely on that any more.", api.About(now.Sub(t.Asked)))
		}
		return said + " dray does not rely on that any more."
	}
	return "dray does not know what it means: no client with these media types has asked for it, or the answer was forgotten."
}

func explainedParts(w io.Writer, e api.Explanation) {
	section(w, "Parts")
	if len(e.Parts) == 0 {
		fmt.Fprintln(w, "  none are known")
		return
	}
	fmt.Fprintln(w, "  KIND\tDIGEST\tSIZE\tWHERE\tLAST USE\tSTATE")
	for _, p := range e.Parts {
		used := "-"
		if p.Blob != nil {
			used = day(p.Blob.LastUse)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\n", strings.TrimSpace(p.Kind+" "+p.Platform), shortOr(p), known(p.Size), cmp.Or(strings.Join(p.Where, ", "), "nowhere"), used, stateOfPart(p))
	}
}

func shortOr(p api.ExplainedPart) string {
	if p.Digest == "" {
		return "unknown"
	}
	return oci.Short(p.Digest)
}

func known(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return size(n)
}

// stateOfPart lists the states of a part, such as "verified, pinned", or returns "-".
func stateOfPart(p api.ExplainedPart) string {
	var s []string
	add := func(is bool, text string) {
		if is {
			s = append(s, text)
		}
	}
	if b := p.Blob; b != nil {
		add(b.Unverified, "to be verified")
		add(!b.Unverified, "verified")
		add(b.Pinned, "pinned")
		add(b.Open, "open")
	}
	add(p.Shared, "not confirmed for this repository")
	add(p.Absent != "", "not found at the upstream")
	add(p.Unavailable, "unavailable")
	add(p.Unknown && p.Absent == "", "its parts are unknown")
	return cmp.Or(strings.Join(s, ", "), "-")
}

func explainedPull(w io.Writer, e api.Explanation) {
	p := e.Pull
	text := map[api.Serving]string{
		api.ServeCache:    "The client gets the manifest that is here.",
		api.ServeUpdating: "The client gets the manifest that is here, while dray asks the upstream in the background.",
		api.ServeOrigin:   "The client gets the manifest from the upstream.",
		api.ServeConfirm:  "The client gets the manifest that is here, if the upstream confirms it. If the tag has moved, dray fetches what it means now.",
		api.ServeStale:    "The client gets the old manifest, because the upstream is not asked: " + p.Why + ".",
		api.ServeAbsent:   "The client gets \"not found\": " + p.Why + ".",
		api.ServeRefused:  "The client gets an error: " + p.Why + ".",
		api.ServeDown:     "The client gets an error, because the upstream is not asked: " + p.Why + ".",
	}[p.Serves]
	if p.Fallback != "" {
		text = fmt.Sprintf("The fallback %s answers, because %s does not. %s", p.Fallback, e.Route.Upstream, strings.Replace(text, "the upstream", "the fallback", 1))
	}
	section(w, "Next pull", text)
	if p.Count == 0 && !p.Open {
		fmt.Fprintln(w, "  It costs no request to the upstream.")
		return
	}
	bytes := size(p.Bytes)
	if p.Open || slices.ContainsFunc(p.Requests, func(q api.ExplainedRequest) bool { return q.Bytes < 0 }) {
		bytes = "at least " + bytes
	}
	fmt.Fprintf(w, "  It costs %s to the upstream, which sends %s:\n", counted(p.Count, "request"), bytes)
	for _, q := range p.Requests {
		path := q.Path
		if q.Count > 1 {
			path = fmt.Sprintf("%s (%d parts)", path, q.Count)
		}
		why := q.Why
		if q.Upstream != e.Route.Upstream {
			why += "; asked of " + q.Upstream
		}
		if q.Background {
			why += "; no client waits for it"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", q.Method, path, known(q.Bytes), why)
	}
	if p.Open {
		fmt.Fprintln(w, "  More may follow: not all parts of the image are known.")
	}
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func explainedUpstream(w io.Writer, e api.Explanation) {
	u := e.Upstream
	text := "dray asks it."
	switch {
	case u.Down != "":
		text = fmt.Sprintf("dray does not ask it for %s: %s.", api.About(u.Until.Sub(e.Time)), u.Down)
	case u.Failures > 0:
		text = fmt.Sprintf("dray asks it, although %s in a row failed.", counted(u.Failures, "question"))
	}
	if u.Last != "" {
		text += " The last error: " + u.Last
	}
	section(w, "Upstream "+e.Route.Upstream, text)
	for _, o := range u.Operations {
		if o.PerSecond == 0 && o.Waiting == 0 && o.Paused.IsZero() {
			continue // no limit applies to this operation
		}
		limit := "no limit"
		if o.PerSecond > 0 {
			limit = fmt.Sprintf("%.4g a second", o.PerSecond)
		}
		if !o.Paused.IsZero() {
			limit += fmt.Sprintf(", paused for %s: %s", api.About(o.Paused.Sub(e.Time)), o.Last)
		}
		fmt.Fprintf(w, "  %s\t%s\t%d waiting\n", o.Name, limit, o.Waiting)
	}
	if q := u.Quota; q != nil {
		fmt.Fprintf(w, "  %d of %d pulls were left %s ago.%s\n", q.Remaining, q.Limit, api.About(e.Time.Sub(q.Asked)), map[bool]string{true: " They are left to clients."}[q.Reserved])
	}
}

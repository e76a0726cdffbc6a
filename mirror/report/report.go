// Package report shows the report on a checked push in a browser: what failed, where, and what to
// do.
//
// The texts of a report come from strangers: names of files, tags, labels. The template engine
// templ escapes each text for its place in the page. The content security policy allows only the
// style of the page.
package report

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"mime"
	"strconv"
	"strings"

	"dray/mirror/pipeline"
)

// The version must be the version of templ in go.mod and in .ci/env.
//go:generate go run github.com/a-h/templ/cmd/templ@v0.3.1100 generate

// ContentType is the media type of the page.
const ContentType = "text/html; charset=utf-8"

//go:embed report.css
var style string

// Headers returns the header lines that browsers need with the page: the page loads nothing, runs
// nothing, and no site may frame it. Everybody who knows the address may read the page, so browsers
// must not send the address to other sites.
func Headers() map[string]string {
	sum := sha256.Sum256([]byte(style))
	return map[string]string{
		"Content-Type": ContentType,
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"Referrer-Policy": "no-referrer",
		"X-Frame-Options": "DENY",
	}
}

// Wanted reports whether a client that sends these Accept lines wants a page rather than JSON. A
// client that accepts only */*, like most programs, gets JSON.
func Wanted(accept []string) bool {
	html, program := 0.0, 0.0
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		weight := 1.0
		if text, ok := params["q"]; ok {
			if weight, err = strconv.ParseFloat(text, 64); err != nil {
				continue
			}
		}
		switch kind {
		case "text/html", "application/xhtml+xml":
			html = max(html, weight)
		case "application/json":
			program = max(program, weight)
		}
	}
	return html > program
}

// Page returns the page about a report.
func Page(r *pipeline.Report) ([]byte, error) {
	var b bytes.Buffer
	err := page(viewOf(r)).Render(context.Background(), &b)
	return b.Bytes(), err
}

type view struct {
	*pipeline.Report
	// Name is the image, and Title the outcome in a sentence.
	Name, Title, Lead string
	Groups            []group
}

// group is a list of findings with the same effect on the verdict.
type group struct {
	Title, Lead string
	Items       []item
}

// item is a finding, or a missing result (a [pipeline.Unknown]).
type item struct {
	Rule, What, Where, Layer, Fix, Fingerprint, Waived, Doc string
}

func viewOf(r *pipeline.Report) view {
	v := view{Report: r, Name: r.Repository}
	switch {
	case r.Tag != "":
		v.Name += ":" + r.Tag
	case r.Digest != "":
		v.Name += "@" + r.Digest.String()
	}
	rejecting := group{Title: "Why it was rejected", Lead: "Each of these alone rejects the image."}
	missing := group{Title: "Checks without a result", Lead: "These could not be completed, and the operator of dray wants their result. The next push tries again; if that does not help, tell the operator."}
	warnings := group{Title: "Warnings", Lead: "These reject nothing."}
	waived := group{Title: "Waived", Lead: "The operator of dray has decided that these may pass."}
	for _, f := range r.Findings {
		i := item{
			Rule: f.Stage + "/" + f.Rule, What: f.What, Where: f.Where.String(), Layer: f.Where.Layer.String(), Fix: f.Fix,
			Fingerprint: f.Fingerprint, Waived: f.Waived, Doc: docOf(f.Stage),
		}
		switch {
		case f.Rejects():
			rejecting.Items = append(rejecting.Items, i)
		case f.Waived != "":
			waived.Items = append(waived.Items, i)
		default:
			warnings.Items = append(warnings.Items, i)
		}
	}
	for _, u := range r.Unknowns {
		i := item{Rule: u.Stage, What: "no result: " + u.Why, Where: u.Where.String(), Layer: u.Where.Layer.String(), Doc: docOf(u.Stage)}
		if u.Rejects() {
			missing.Items = append(missing.Items, i)
		} else {
			warnings.Items = append(warnings.Items, i)
		}
	}
	for _, g := range []group{rejecting, missing, warnings, waived} {
		if len(g.Items) > 0 {
			v.Groups = append(v.Groups, g)
		}
	}
	v.Title, v.Lead = "The push passed", "The image passed all checks that reject."
	switch r.Outcome() {
	case "reject":
		v.Title, v.Lead = "The push was rejected", fmt.Sprintf("The image was not stored. %s to fix.", counted(len(rejecting.Items)))
	case "unknown":
		v.Title, v.Lead = "The push could not be judged", "The image was not stored, because not all checks had a result."
	}
	return v
}

func counted(n int) string {
	if n == 1 {
		return "There is 1 thing"
	}
	return fmt.Sprintf("There are %d things", n)
}

// docOf returns where the documents of dray explain a stage.
func docOf(stage string) string { return "docs/pipeline.md#" + strings.ToLower(stage) }

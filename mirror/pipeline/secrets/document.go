package secrets

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"dray/mirror/pipeline"
)

// CheckImage implements pipeline.ImageStage. It searches the configurations and the manifests, with
// their variables, labels, histories and annotations. It also applies the rules for paths to the
// file names in the annotations of layers.
func (s *Stage) CheckImage(_ context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	var found []pipeline.Finding
	for _, m := range img.Manifests {
		found = append(found, s.search("the manifest", img.Place(m), m.Raw)...)
		if m.Config != nil {
			found = append(found, s.search("the configuration", img.Place(m), m.Config.Raw)...)
		}
		for i, l := range m.Layers {
			where := img.LayerPlace(m, i)
			where.Path = l.Title()
			for _, r := range s.paths {
				if where.Path != "" && r.Match(where.Path) {
					found = append(found, r.finding(where))
				}
			}
		}
	}
	if more := len(found) - maxInDocuments; more > 0 {
		return append(found[:maxInDocuments], pipeline.MoreFindings(more, pipeline.Place{})), nil
	}
	return found, nil
}

// maxInDocuments bounds the findings in the documents of one push.
const maxInDocuments = 200

// search finds the credentials in a document.
func (s *Stage) search(name string, where pipeline.Place, raw []byte) []pipeline.Finding {
	d := &document{}
	d.scanner = s.engine.NewScanner(func(m Match) {
		what := fmt.Sprintf("%s in %s, fingerprint %s", m.Rule.What, name, m.Fingerprint)
		if at := d.at(s.engine); at != "" {
			what = fmt.Sprintf("%s in %s (%s), fingerprint %s", m.Rule.What, name, at, m.Fingerprint)
		}
		d.found = append(d.found, pipeline.Finding{Rule: m.Rule.ID, What: what, Where: where, Fingerprint: m.Fingerprint, Fix: revoke})
	})
	if !json.Valid(raw) { // no JSON, or JSON nested more deeply than encoding/json accepts
		d.text(string(raw))
		return d.found
	}
	d.json = json.NewDecoder(bytes.NewReader(raw))
	d.value()
	return d.found
}

// document is the state of the search in one document. Texts are decoded before they are searched,
// because escapes of JSON could hide a credential.
type document struct {
	json    *json.Decoder
	scanner *Scanner
	// path has the names of members and the indices that lead to the text that is searched.
	path  []any
	found []pipeline.Finding
}

func (d *document) text(s string) {
	d.scanner.Reset()
	_, _ = d.scanner.Write([]byte(s)) // it never fails
	d.scanner.End()
}

// value searches the next value of a valid document.
func (d *document) value() {
	token, err := d.json.Token()
	if err != nil {
		return
	}
	text, _ := token.(string)
	if n := len(d.path); n > 0 {
		if name, member := d.path[n-1].(string); member {
			text = name + "=" + text // some rules need the name, which can itself be a credential
		}
	}
	d.text(text)
	if bracket, ok := token.(json.Delim); ok {
		for i := 0; d.json.More(); i++ {
			var step any = i
			if bracket == '{' {
				step, _ = d.json.Token()
			}
			d.path = append(d.path, step)
			d.value()
			d.path = d.path[:len(d.path)-1]
		}
		_, _ = d.json.Token() // the closing bracket
	}
}

// plainName matches the names of JSON members that findings may show. Findings also hide a name in
// which a rule finds a credential.
var plainName = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,64}$`)

// [document.at] returns the place of the text in the document, such as config.Env[2]. A name that
// could itself be a credential is replaced by "…".
func (d *document) at(e *Engine) string {
	var b strings.Builder
	for _, step := range d.path {
		name, member := step.(string)
		if !member {
			fmt.Fprintf(&b, "[%d]", step)
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		hidden := !plainName.MatchString(name)
		if !hidden {
			s := e.NewScanner(func(Match) { hidden = true })
			_, _ = s.Write([]byte(name))
			s.End()
		}
		if hidden {
			name = "…"
		}
		b.WriteString(name)
	}
	return b.String()
}

package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"

	"dray/mirror/pipeline"
)

// facts are what one layer says about users and about files with the set-user-ID or set-group-ID
// bit.
type facts struct {
	// Passwd has the numbers of each name in /etc/passwd; nil where the layer has no such file.
	Passwd map[string][]int `json:"p,omitempty"`
	// Opaque: there is one, and it cannot be read.
	Opaque bool `json:"o,omitempty"`
	// Special are files with one of the bits.
	Special []string `json:"s,omitempty"`
	// Plain are executable files without them, which replace others of lower layers.
	Plain []string `json:"f,omitempty"`
	// Gone are paths that the layer deletes; those that end in a slash are directories whose former
	// content it hides.
	Gone []string `json:"g,omitempty"`
	// More: there were more special files than are listed.
	More bool `json:"m,omitempty"`
}

// Bounds of the facts about one layer. They are kept under pipeline.MaxFacts.
const (
	maxPasswd  = 64 << 10
	maxUsers   = 500
	maxSpecial = 100
	maxPlain   = 24 << 10 // bytes of paths
	maxName    = 200
)

const passwdPath = "etc/passwd"

// Open implements pipeline.LayerStage.
func (*Stage) Open(context.Context, pipeline.Layer) (pipeline.Visitor, error) { return &visitor{}, nil }

type visitor struct {
	f facts
	// passwd is the content of /etc/passwd while it comes.
	passwd []byte
	plain  int
}

// Whiteouts of the image specification ("Whiteouts").
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// Begin implements pipeline.Visitor.
func (v *visitor) Begin(e *pipeline.Entry) (bool, error) {
	dir, name := path.Split(e.Path)
	switch {
	case name == opaque:
		v.gone(dir)
		return false, nil
	case strings.HasPrefix(name, whiteout):
		v.gone(dir + strings.TrimPrefix(name, whiteout))
		return false, nil
	case e.Path == passwdPath:
		v.passwd, v.f.Passwd, v.f.Opaque = nil, map[string][]int{}, !e.Regular() || e.Size > maxPasswd
		return !v.f.Opaque, nil
	case e.Path == "etc" && e.Type != '5': // a link: the file is somewhere else
		v.f.Opaque = true
	}
	v.mode(e)
	return false, nil
}

// gone notes a deletion. Only those matter that can concern the paths that are looked at, and long
// lists are of little use: what a layer deletes beyond them is taken to be there still.
func (v *visitor) gone(p string) {
	if v.plain += len(p); v.plain <= maxPlain {
		v.f.Gone = append(v.f.Gone, p)
	}
}

func (v *visitor) mode(e *pipeline.Entry) {
	// A hard link has the mode of its target, and archivers write it down with it.
	if !e.Regular() && e.Type != '1' {
		return
	}
	switch {
	case e.Mode&0o6000 != 0 && e.Mode&0o111 != 0:
		if len(v.f.Special) >= maxSpecial || len(e.Path) > maxName {
			v.f.More = true
			return
		}
		v.f.Special = append(v.f.Special, e.Path)
	case e.Mode&0o111 != 0:
		if v.plain += len(e.Path); v.plain <= maxPlain {
			v.f.Plain = append(v.f.Plain, e.Path)
		}
	}
}

// Data implements pipeline.Visitor.
func (v *visitor) Data(p []byte) error {
	v.passwd = append(v.passwd, p...)
	return nil
}

// End implements pipeline.Visitor.
func (v *visitor) End() error {
	for line := range bytes.Lines(v.passwd) {
		fields := strings.Split(string(bytes.TrimSpace(line)), ":")
		if len(fields) < 3 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		uid, err := strconv.Atoi(fields[2])
		if err != nil {
			continue
		}
		if len(v.f.Passwd) >= maxUsers || len(fields[0]) > maxName/4 {
			v.f.Opaque = true
			continue
		}
		if name := fields[0]; !slices.Contains(v.f.Passwd[name], uid) && len(v.f.Passwd[name]) < 8 {
			v.f.Passwd[name] = append(v.f.Passwd[name], uid)
		}
	}
	v.passwd = nil
	return nil
}

// Close implements pipeline.Visitor.
func (v *visitor) Close(bool) (pipeline.LayerResult, error) {
	text, err := json.Marshal(v.f)
	return pipeline.LayerResult{Facts: text}, err
}

// view is the file system as the layers make it, as far as it is looked at.
type view struct {
	passwd map[string][]int
	opaque bool
	more   bool
	files  map[string]int
}

// apply puts a layer on top. What it deletes are files of lower layers alone.
func (v *view) apply(f facts, layer int) {
	for _, p := range f.Gone {
		dir := strings.TrimSuffix(p, "/") + "/"
		if p == passwdPath || strings.HasPrefix(passwdPath, dir) {
			v.passwd, v.opaque = nil, false
		}
		for name := range v.files {
			if name == p || strings.HasPrefix(name, dir) || p == "" {
				delete(v.files, name)
			}
		}
	}
	for _, p := range f.Plain {
		delete(v.files, p)
	}
	for _, p := range f.Special {
		v.files[p] = layer
	}
	v.more = v.more || f.More
	if f.Passwd != nil {
		v.passwd = f.Passwd
		v.opaque = f.Opaque
	} else if f.Opaque {
		v.opaque = true
	}
}

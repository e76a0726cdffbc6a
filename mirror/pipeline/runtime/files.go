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

// facts are the results for one layer: its users, and its files with the set-user-ID or
// set-group-ID bit.
type facts struct {
	// Passwd has the user IDs of each name in /etc/passwd; nil if the layer has no such file.
	Passwd map[string][]int `json:"p,omitempty"`
	// Unreadable reports whether the layer has an /etc/passwd that is no plain file or too long.
	Unreadable bool `json:"o,omitempty"`
	// Special are files with one of the bits.
	Special []string `json:"s,omitempty"`
	// Plain are executable files without the bits. They may replace special files of lower layers.
	Plain []string `json:"f,omitempty"`
	// Deleted are paths that the layer deletes. A path with a trailing slash is a directory whose
	// content in lower layers is hidden.
	Deleted []string `json:"g,omitempty"`
	// More reports whether there were more special files than Special holds.
	More bool `json:"m,omitempty"`
}

// Bounds of the facts about one layer. They keep the facts below pipeline.MaxFacts.
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
	// passwd is the content of /etc/passwd that was read so far.
	passwd    []byte
	pathBytes int
}

// Names of whiteouts (image-spec, "Whiteouts").
const (
	whiteout       = ".wh."
	opaqueWhiteout = ".wh..wh..opq"
)

// Begin implements pipeline.Visitor.
func (v *visitor) Begin(e *pipeline.Entry) (bool, error) {
	dir, name := path.Split(e.Path)
	switch {
	case name == opaqueWhiteout:
		v.addDeleted(dir)
		return false, nil
	case strings.HasPrefix(name, whiteout):
		v.addDeleted(dir + strings.TrimPrefix(name, whiteout))
		return false, nil
	case e.Path == passwdPath:
		v.passwd, v.f.Passwd, v.f.Unreadable = nil, map[string][]int{}, !e.Regular() || e.Size > maxPasswd
		return !v.f.Unreadable, nil
	case e.Path == "etc" && e.Type != '5': // a link: the file is somewhere else
		v.f.Unreadable = true
	}
	v.addMode(e)
	return false, nil
}

// addDeleted records a deletion. Few of them concern paths that are checked, so the list is
// bounded by maxPlain. Files deleted beyond it count as if they were still there.
func (v *visitor) addDeleted(p string) {
	if v.pathBytes += len(p); v.pathBytes <= maxPlain {
		v.f.Deleted = append(v.f.Deleted, p)
	}
}

func (v *visitor) addMode(e *pipeline.Entry) {
	// A hard link has the mode of its target, which archivers write into its entry.
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
		if v.pathBytes += len(e.Path); v.pathBytes <= maxPlain {
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
			v.f.Unreadable = true
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

// rootFS is the file system that the layers make, as far as it is checked.
type rootFS struct {
	passwd           map[string][]int
	passwdUnreadable bool
	more             bool
	files            map[string]int
}

// apply adds a layer on top. Its deletions concern lower layers only.
func (v *rootFS) apply(f facts, layer int) {
	for _, p := range f.Deleted {
		dir := strings.TrimSuffix(p, "/") + "/"
		if p == passwdPath || strings.HasPrefix(passwdPath, dir) {
			v.passwd, v.passwdUnreadable = nil, false
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
		v.passwdUnreadable = f.Unreadable
	} else if f.Unreadable {
		v.passwdUnreadable = true
	}
}

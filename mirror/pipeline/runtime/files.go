package runtime

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/flate"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"dray/mirror/pipeline"
)

// facts are the result for one layer: records of the paths that the layer writes and deletes.
type facts struct {
	// Log has the records, one after another, compressed by flate. Each record consists of a kind and
	// two texts. Each text ends with a zero byte.
	Log []byte `json:"l"`
	// Dropped is the lowest class of the records that Log lacks. It is 0 if Log lacks none.
	Dropped class `json:"d,omitempty"`
}

// class says how important a record is: the lower the class, the more important. If the log has no
// room for all records, pack drops those of the highest class first.
type class int

const (
	_ class = iota
	// Records of classSpecial name the special files (see node.special).
	classSpecial
	// Records of classMark name the users, and what may replace /etc or /etc/passwd.
	classMark
	// Without records of classDeletion, deleted files of lower layers seem to stay.
	classDeletion
	// Without records of classLink, it is not known where entries of upper layers are written.
	classLink
	// Records of classPlain are about plain files and directories. Without them, special files of
	// lower layers seem to stay although plain files replace them.
	classPlain
)

// Kinds of records, in addition to the kinds of a node.
const (
	kindDeletion = '-'
	kindOpaque   = 'o' // deletes the content that lower layers have in a directory
	kindSpecial  = 's'
	kindUsers    = 'p'
)

// Bounds of the facts about one layer, in bytes.
const (
	maxPasswd = 64 << 10
	maxLog    = 44 << 10 // encoded as JSON, the log is shorter than pipeline.MaxFacts
	maxPlain  = 2 << 20  // the paths of plain files and directories in memory
	maxMarks  = 4 << 20  // the other texts in memory
	maxRead   = 16 << 20 // the bytes of an uncompressed log that are read
)

const passwdPath = "etc/passwd"

// Open implements pipeline.LayerStage.
func (*Stage) Open(context.Context, pipeline.Layer) (pipeline.Visitor, error) {
	return &visitor{tree: newTree(), dropped: math.MaxInt}, nil
}

// visitor applies the entries of a layer as runtimes do when they unpack it: the last entry of a
// path counts, and an entry below a link is written to the target of the link.
type visitor struct {
	tree    *tree
	deleted []record
	// dropped is the lowest class of records for which there was no room in memory.
	dropped      class
	plain, marks int // bytes in memory
	// The file whose content is being read, and the bytes that were read so far.
	reading *node
	content []byte
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
	case e.Path == "":
		return false, nil
	case name == opaqueWhiteout:
		v.delete(kindOpaque, strings.TrimSuffix(dir, "/"))
		return false, nil
	case strings.HasPrefix(name, whiteout):
		v.delete(kindDeletion, dir+strings.TrimPrefix(name, whiteout))
		return false, nil
	}
	n := v.node(e)
	if n == nil {
		return false, nil
	}
	v.write(e.Path, n)
	if n.users != nil && e.Regular() {
		v.reading, v.content = n, nil
		return true, nil
	}
	return false, nil
}

func (v *visitor) delete(kind byte, p string) {
	if v.room(classDeletion, len(p)) {
		v.deleted = append(v.deleted, record{classDeletion, kind, p, ""})
	}
}

// room reserves n bytes of memory for a record of class c. If the record would exceed the bound,
// room sets v.dropped to the lower of v.dropped and c, and returns false.
func (v *visitor) room(c class, n int) bool {
	used, most := &v.marks, maxMarks
	if c == classPlain {
		used, most = &v.plain, maxPlain
	}
	if *used+n > most {
		v.dropped = min(v.dropped, c)
		return false
	}
	*used += n
	return true
}

// node returns the node that an entry writes, or nil for an entry that unpackers refuse or ignore.
func (v *visitor) node(e *pipeline.Entry) *node {
	n := &node{kind: kindFile}
	switch e.Type {
	case '5':
		n.kind = kindDir
	case '2':
		n.kind, n.target = kindLink, e.Target
	case '0', 0:
		n.special = special(e)
		if strings.HasSuffix(e.Path, "passwd") && e.Size <= maxPasswd {
			n.users = new(string)
		}
	case '1':
		v.hardLink(e, n)
	case '3', '4', '6':
	default:
		return nil
	}
	return n
}

// hardLink fills in the node n of a hard link: a second name of the file e.Target. The entry e has
// a mode and attributes of its own, which runtimes give to both names.
func (v *visitor) hardLink(e *pipeline.Entry, n *node) {
	n.special = special(e)
	target, _ := v.tree.find(e.Target, false)
	switch {
	case target != nil && target.kind == kindFile:
		n.users = target.users
		target.special = cmp.Or(n.special, target.special)
	case target == nil && n.special != "": // the target is in a lower layer
		v.write(strings.TrimPrefix(path.Clean("/"+e.Target), "/"), &node{kind: kindFile, special: n.special})
	}
}

// special returns the value of node.special for an entry, or "".
func special(e *pipeline.Entry) string {
	switch {
	case e.Mode&0o111 == 0:
		return ""
	case e.Mode&0o6000 != 0:
		return bySetID
	case e.Capabilities:
		return byCapabilities
	}
	return ""
}

// write puts an entry into the tree. If there is no room for the entry, it only removes the node
// that the entry replaces.
func (v *visitor) write(p string, n *node) {
	dir, name := path.Split(p)
	if v.room(n.class(p), len(p)+len(n.target)) {
		if parent, _ := v.tree.find(dir, true); parent != nil {
			parent.put(name, n)
		}
		return
	}
	if parent, _ := v.tree.find(dir, false); parent != nil && (n.kind != kindDir || parent.children[name] != nil && parent.children[name].kind != kindDir) {
		delete(parent.children, name)
	}
}

// class returns the class of the record of a node. A node that is named etc or passwd belongs to
// classMark, because it may replace /etc or /etc/passwd.
func (n *node) class(p string) class {
	base := path.Base(p)
	switch {
	case n.special != "":
		return classSpecial
	case n.users != nil || base == "passwd" || base == "etc":
		return classMark
	case n.kind == kindLink:
		return classLink
	}
	return classPlain
}

// Data implements pipeline.Visitor.
func (v *visitor) Data(p []byte) error {
	v.content = append(v.content, p...)
	return nil
}

// End implements pipeline.Visitor.
func (v *visitor) End() error {
	*v.reading.users = parsePasswd(v.content)
	v.reading, v.content = nil, nil
	return nil
}

// parsePasswd returns the user ID of each name in an /etc/passwd, one NAME:ID in each line. It
// reads the file as runtimes do (moby/sys/user, ParsePasswd): the first line of a name counts, and
// an ID that is missing or not a number is 0. An ID that does not fit into 31 bits is also 0,
// because some runtimes cut off the higher bits.
func parsePasswd(text []byte) string {
	var b strings.Builder
	seen := map[string]bool{}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		fields := strings.Split(string(line), ":")
		name, id := fields[0], 0
		if len(fields) > 2 {
			id, _ = strconv.Atoi(fields[2])
		}
		if id < 0 || id > math.MaxInt32 {
			id = 0
		}
		if !seen[name] {
			seen[name] = true
			fmt.Fprintf(&b, "%s:%d\n", strings.ReplaceAll(name, "\x00", ""), id)
		}
	}
	return b.String()
}

// userID returns the ID of a user in the result of parsePasswd, and whether the user is listed
// there.
func userID(users, name string) (id int, listed bool) {
	for line := range strings.Lines(users) {
		if got, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":"); got == name {
			id, err := strconv.Atoi(number)
			return id, err == nil
		}
	}
	return 0, false
}

// record is one fact about a path.
type record struct {
	class class
	kind  byte
	path  string
	text  string
}

// Close implements pipeline.Visitor.
func (v *visitor) Close(bool) (pipeline.LayerResult, error) {
	records := v.deleted
	v.tree.root.each("", func(p string, n *node) {
		switch {
		case n.kind == kindDir && n.layer < 0: // no entry names this directory
		case n.users != nil && n.special != "":
			records = append(records, record{classSpecial, kindSpecial, p, n.special}, record{classMark, kindUsers, p, *n.users})
		case n.users != nil:
			records = append(records, record{classMark, kindUsers, p, *n.users})
		case n.special != "":
			records = append(records, record{classSpecial, kindSpecial, p, n.special})
		default:
			records = append(records, record{n.class(p), n.kind, p, n.target})
		}
	})
	slices.SortStableFunc(records, func(a, b record) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.rank(), b.rank()))
	})
	f, err := pack(records)
	if v.dropped <= classPlain && (f.Dropped == 0 || v.dropped < f.Dropped) {
		f.Dropped = v.dropped
	}
	if err != nil {
		return pipeline.LayerResult{}, err
	}
	text, err := json.Marshal(f)
	return pipeline.LayerResult{Facts: text}, err
}

// rank orders the records of one class: first those about /etc/passwd, then those that may affect
// it through a link.
func (r record) rank() int {
	switch {
	case r.path == passwdPath || r.path == "etc" || r.path == "":
		return 0
	case path.Base(r.path) == "passwd", slices.Contains([]string{"etc", ".", "/"}, path.Base(r.text)):
		return 1
	}
	return 2
}

// pack encodes the first records as facts: as many as fit into maxLog.
func pack(records []record) (f facts, err error) {
	kept := len(records)
	if f.Log, err = compress(records); err != nil || len(f.Log) <= maxLog {
		return f, err
	}
	for least := 0; kept-least > 1; { // records[:least] fit into maxLog, records[:kept] do not
		middle := (least + kept) / 2
		log, err := compress(records[:middle])
		if err != nil {
			return f, err
		}
		if len(log) > maxLog {
			kept = middle
			continue
		}
		least, f.Log = middle, log
	}
	if len(f.Log) > maxLog { // not even the first record fits
		f.Log = nil
	}
	f.Dropped = records[kept-1].class
	return f, nil
}

func compress(records []record) ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		fmt.Fprintf(w, "%c%s\x00%s\x00", r.kind, r.path, r.text)
	}
	err = w.Close()
	return b.Bytes(), err
}

var errBadFacts = errors.New("what is remembered of a layer cannot be read")

// records decodes the log. The records have no class.
func (f facts) records() ([]record, error) {
	r := bufio.NewReader(io.LimitReader(flate.NewReader(bytes.NewReader(f.Log)), maxRead))
	var out []record
	for {
		kind, err := r.ReadByte()
		if err == io.EOF {
			return out, nil
		}
		p, err1 := r.ReadString(0)
		text, err2 := r.ReadString(0)
		if err != nil || err1 != nil || err2 != nil {
			return nil, errBadFacts
		}
		out = append(out, record{kind: kind, path: strings.TrimSuffix(p, "\x00"), text: strings.TrimSuffix(text, "\x00")})
	}
}

// rootFS is the part of an image's file system that is checked.
type rootFS struct {
	tree *tree
	// dropped is the lowest class of the records that the facts about the layers lack. It is
	// math.MaxInt if no records are missing.
	dropped class
	// unsure is set if the content of /etc/passwd is uncertain: runtimes may disagree on it, or an
	// entry may be written to it through a link whose record is missing.
	unsure bool
}

func newRootFS() *rootFS { return &rootFS{tree: newTree(), dropped: math.MaxInt} }

// apply adds a layer on top. The deletions of the layer concern lower layers only.
func (fs *rootFS) apply(f facts, layer int) error {
	records, err := f.records()
	if err != nil {
		return err
	}
	for _, r := range records {
		switch r.kind {
		case kindDeletion:
			fs.tree.remove(r.path, false)
		case kindOpaque:
			fs.tree.remove(r.path, true)
		}
	}
	lost := fs.dropped <= classLink
	named := map[string]bool{}
	for _, r := range records {
		if r.kind == kindDir { // a directory replaces a link, so entries below the directory do not follow the link
			named[r.path] = true
			fs.unsure = fs.tree.merge(r.path, &node{kind: kindDir, layer: layer}) || fs.unsure
		}
	}
	for _, r := range records {
		n := &node{kind: r.kind, layer: layer}
		switch r.kind {
		case kindFile:
		case kindLink:
			n.target = r.text
		case kindSpecial:
			n.kind, n.special = kindFile, r.text
		case kindUsers:
			n.kind, n.users = kindFile, &r.text
			if was, _ := fs.tree.find(r.path, false); was != nil && was.layer == layer && was.kind == kindFile {
				n.special = was.special // from the kindSpecial record of the same file, which comes first
			}
		default:
			continue
		}
		fs.unsure = fs.tree.merge(r.path, n) || fs.unsure || lost && strays(r.path, named)
	}
	if f.Dropped > 0 {
		fs.dropped = min(fs.dropped, f.Dropped)
	}
	return nil
}

// strays reports whether an entry may be written to /etc/passwd through a link that is not known.
// If the layer names all directories above the entry, the result is false: those directories
// replace links.
func strays(p string, named map[string]bool) bool {
	if base := path.Base(p); p == "etc" || p == passwdPath || base != "etc" && base != "passwd" {
		return false
	}
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if !named[dir] {
			return true
		}
	}
	return false
}

// passwd returns the users in /etc/passwd, in the form of parsePasswd; none if there is no such
// file. ok is false if the content of the file is not known.
func (fs *rootFS) passwd() (users string, ok bool) {
	n, linked := fs.tree.find(passwdPath, false)
	switch {
	case fs.unsure || fs.dropped <= classMark:
		return "", false
	case n == nil:
		return "", !linked || fs.dropped > classPlain
	case n.users == nil:
		return "", false
	}
	return *n.users, true
}

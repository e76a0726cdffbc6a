package runtime

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// Kinds of a node. The field record.kind has these values and some others.
const (
	kindDir  = 'd'
	kindFile = 'f'
	kindLink = 'l' // a symbolic link
)

// node is a file, link or directory at a path of a layer or an image.
type node struct {
	kind byte
	// target is the target of a symbolic link.
	target string
	// special is bySetID or byCapabilities if the file gives rights to the user who starts it. It is
	// empty if the file gives none.
	special string
	// users is the result of parsePasswd for the file; nil if the content is not read.
	users *string
	// layer is the index of the layer that wrote the node. It is -1 for directories that no entry
	// names.
	layer    int
	children map[string]*node
}

// tree is the known part of a file system.
type tree struct {
	root node
	// looseFiles has, by path, files that give rights (node.special is not empty). The path of each
	// file leads through a link of another layer. Runtimes do not agree on where these files are. So a
	// file stays in looseFiles until a layer deletes its path, or writes the path again without a link
	// on the way.
	looseFiles map[string]*node
}

func newTree() *tree {
	return &tree{root: node{kind: kindDir, layer: -1}, looseFiles: map[string]*node{}}
}

// maxFollowed bounds the number of links that [tree.find] follows for one path. Linux has the same
// limit.
const maxFollowed = 40

// find follows a path as a runtime does in a container whose root directory is the root of the
// tree. It returns nil if there is nothing at the path, or if too many links are on the way. If
// create is true, it makes missing directories, and replaces files on the way by directories.
// linked reports whether a link was on the way.
func (t *tree) find(p string, create bool) (n *node, linked bool) {
	stack := []*node{&t.root}
	followed := 0
	for rest := strings.Split(p, "/"); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		top := stack[len(stack)-1]
		child := top.children[name]
		if create && (child == nil || child.kind == kindFile) {
			child = &node{kind: kindDir, layer: -1}
			top.set(name, child)
		}
		if child == nil {
			return nil, linked
		}
		if child.kind != kindLink {
			stack = append(stack, child)
			continue
		}
		linked = true
		if followed++; followed > maxFollowed {
			return nil, true
		}
		if path.IsAbs(child.target) {
			stack = stack[:1]
		}
		rest = append(strings.Split(child.target, "/"), rest...)
	}
	return stack[len(stack)-1], linked
}

func (n *node) set(name string, child *node) {
	if n.children == nil {
		n.children = map[string]*node{}
	}
	n.children[name] = child
}

// put writes an entry into a directory. If a directory is written over a directory, the content
// stays. Any other entry replaces the node that was there.
func (n *node) put(name string, entry *node) {
	if was := n.children[name]; was != nil && was.kind == kindDir && entry.kind == kindDir {
		was.layer = entry.layer
		return
	}
	n.set(name, entry)
}

// remove deletes the node at a path. If contentOnly is true, it deletes only the nodes below the
// path. If the path leads through a link, it deletes only files in looseFiles.
func (t *tree) remove(p string, contentOnly bool) {
	gone := func(name string) bool {
		return strings.HasPrefix(name, p+"/") || p == "" || name == p && !contentOnly
	}
	for name := range t.looseFiles {
		if gone(name) {
			delete(t.looseFiles, name)
		}
	}
	if p == "" {
		t.root.children = nil
		return
	}
	dir, name := path.Split(p)
	parent, linked := t.find(dir, false)
	switch {
	case parent == nil || linked:
	case !contentOnly:
		delete(parent.children, name)
	case parent.children[name] != nil && parent.children[name].kind == kindDir:
		parent.children[name].children = nil
	}
}

// [node.each] calls visit(p, child) for each node below n, sorted by path.
func (n *node) each(dir string, visit func(p string, child *node)) {
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		child, p := n.children[name], path.Join(dir, name)
		visit(p, child)
		child.each(p, visit)
	}
}

// merge writes an entry of a layer on top of the lower layers. If the entry is below a link of a
// lower layer, containerd follows the link, and Docker replaces the link by a directory. merge
// follows the link, too, but leaves out a file without node.users. It returns true if the entry may
// cause runtimes to disagree on the content of /etc/passwd.
func (t *tree) merge(p string, entry *node) (unsure bool) {
	dir, name := path.Split(p)
	parent, linked := t.find(dir, false)
	if !linked {
		parent, _ = t.find(dir, true)
		parent.put(name, entry)
		delete(t.looseFiles, p)
		return false
	}
	if entry.special != "" {
		t.looseFiles[p] = entry
	}
	if parent == nil || entry.kind == kindFile && entry.users == nil {
		return parent == nil && (name == "etc" || name == "passwd")
	}
	before, _ := t.find(passwdPath, false)
	parent.put(name, entry)
	after, _ := t.find(passwdPath, false)
	return before != after
}

func (t *tree) specials() map[string]*node {
	found := map[string]*node{}
	t.root.each("", func(p string, n *node) {
		if n.special != "" {
			found[p] = n
		}
	})
	for p, n := range t.looseFiles {
		found[p] = n
	}
	return found
}

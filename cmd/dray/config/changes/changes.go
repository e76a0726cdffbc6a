// Package changes compares a configuration with the running one, and finds the keys that a reload
// changes.
package changes

import (
	"encoding"
	"maps"
	"reflect"
	"slices"
	"strings"

	"dray/upstream/auth"
)

// atOnce says for each key whether a reload applies a new value. A line of the table also decides
// for all keys below its key, except for those that have a line of their own. A key for which no
// line decides needs a restart. For a list of sections, the table also says whether a reload can
// add and remove entries.
var atOnce = map[string]bool{
	"listeners[].role":                 true,
	"listeners[].upstreams":            true,
	"listeners[].external_url":         true,
	"listeners[].auth":                 true,
	"listeners[].challenge":            true,
	"listeners[].trusted_proxies":      true,
	"listeners[].forwarded_header":     true,
	"listeners[].proxy_protocol":       true,
	"listeners[].allow_anonymous_push": true,
	"listeners[].answer_within":        true,
	"upstreams":                        true,
	"upstreams[].acknowledge":          false,
	"upstreams[].local":                false,
	"auth":                             true,
	"admin.auth":                       true,
	"admin.allow_anonymous":            true,
	"admin.hosts":                      true,
	"admin.token_file":                 true,
	"savings":                          true,
	"log.level":                        true,
	"log.access":                       true,
}

// Keys returns, in any order, the keys of the table that AtOnce uses.
func Keys() []string { return slices.Collect(maps.Keys(atOnce)) }

// atOnceFixed are the keys that a reload changes even in an entry whose other keys it cannot change
// (see [Fixed]).
var atOnceFixed = []string{"upstreams[].hosts", "upstreams[].prefixes", "upstreams[].default_namespace", "upstreams[].repositories"}

// addresses are sections with an address. If the address differs, the whole section waits for a
// restart, because settings that are safe on the loopback interface, such as access without a
// password, may not be safe at another address.
var addresses = map[string]string{"listeners[]": "Address", "admin": "Address"}

// Fixed is implemented by a type of list entries if a reload cannot add, remove or change some
// entries of this type.
type Fixed interface {
	// Fixed returns two results: addFixed says that a reload cannot add or remove the entry, and
	// keysFixed says that a reload cannot change most keys of the entry.
	Fixed() (addFixed, keysFixed bool)
}

// namedLists are the lists whose entries have unique names.
var namedLists = []string{"listeners", "upstreams", "checks", "auth"}

// AtOnce reports whether a reload applies a new value of a key. The key is written as in
// docs/config.md, such as listeners[].auth. For a list of sections, AtOnce reports whether a reload
// adds and removes entries.
func AtOnce(key string) bool {
	for at := key; at != ""; at = strings.TrimSuffix(at[:max(strings.LastIndexAny(at, ".["), 0)], ".") {
		if now, ok := atOnce[at]; ok {
			return now
		}
	}
	return false
}

// Merged is the result of [Merge] for configurations of type C.
type Merged[C any] struct {
	// Config has the file's values of the keys that a reload applies, and the running values of all
	// other keys.
	Config C
	// Changed are the keys whose value in Config differs from the running one. Pending are the keys
	// whose value in the file differs from Config. The key of a list entry contains the entry's name,
	// as in upstreams[hub].hosts.
	Changed, Pending []string
}

// Merge merges the configuration in the file into the running one, as a reload does. C is a struct
// whose yaml tags are the keys.
func Merge[C any](running, file C) Merged[C] {
	m := merger{}
	m.section("", "", reflect.ValueOf(&running).Elem(), reflect.ValueOf(file))
	return Merged[C]{Config: running, Changed: m.changed, Pending: m.pending}
}

// merger compares two configurations by the tags of their types.
type merger struct {
	changed, pending []string
	fixed            bool // whether a reload cannot change the present section or entry
}

// differs records that a value differs, and reports whether a reload applies the new value.
func (m *merger) differs(path, key string) bool {
	if AtOnce(key) && (!m.fixed || slices.ContainsFunc(atOnceFixed, func(k string) bool { return key == k || strings.HasPrefix(key, k+".") })) {
		m.changed = append(m.changed, path)
		return true
	}
	m.pending = append(m.pending, path)
	return false
}

// section merges a section of the file into the running one.
func (m *merger) section(path, key string, into, next reflect.Value) {
	if field, ok := addresses[key]; ok && !equal(into.FieldByName(field), next.FieldByName(field)) {
		defer func(was bool) { m.fixed = was }(m.fixed)
		m.fixed = true
	}
	for i := range into.NumField() {
		f := into.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch file := next.FieldByName(f.Name + "File"); {
		case options == "inline":
			m.section(path, key, into.Field(i), next.Field(i))
		case f.Type == reflect.TypeFor[auth.Secret]() && file.IsValid() && file.String() != "":
			// This secret comes from a file, which dray reads again when the file changes. The loop has
			// already merged the name of the file, because that field comes first in the struct. So the
			// two names differ here only if the new name waits for a restart.
			if into.FieldByName(f.Name + "File").Equal(file) {
				into.Field(i).Set(next.Field(i))
			}
		default:
			m.value(join(path, name), join(key, name), into.Field(i), next.Field(i))
		}
	}
}

// value merges a value of the file into the running one.
func (m *merger) value(path, key string, into, next reflect.Value) {
	switch {
	case slices.Contains(namedLists, key):
		m.entries(path, key, into, next)
	case into.Kind() == reflect.Struct && !isText(into):
		m.section(path, key, into, next)
	case !equal(into, next) && m.differs(path, key):
		into.Set(next)
	}
}

// entries merges a list whose entries have names. New entries come after the running entries: the
// order of the entries has no effect.
func (m *merger) entries(path, key string, into, next reflect.Value) {
	merged := reflect.MakeSlice(into.Type(), 0, next.Len())
	for _, running := range into.Seq2() {
		at := path + "[" + nameOf(running) + "]"
		file, ok := find(next, nameOf(running))
		added, changed := fixed(running)
		if m.fixed = changed; ok {
			_, becomes := fixed(file)
			m.fixed = changed || becomes
			entry := reflect.New(running.Type()).Elem()
			entry.Set(running)
			m.section(at, key+"[]", entry, file)
			merged = reflect.Append(merged, entry)
		} else if m.fixed = added || changed; !m.differs(at, key) { // a reload does not remove an entry that it could not add again
			merged = reflect.Append(merged, running)
		}
	}
	for _, file := range next.Seq2() {
		m.fixed, _ = fixed(file)
		if _, ok := find(into, nameOf(file)); !ok && m.differs(path+"["+nameOf(file)+"]", key) {
			merged = reflect.Append(merged, file)
		}
	}
	m.fixed = false
	into.Set(merged)
}

func fixed(entry reflect.Value) (added, changed bool) {
	if f, ok := entry.Interface().(Fixed); ok {
		return f.Fixed()
	}
	return false, false
}

func nameOf(entry reflect.Value) string { return entry.FieldByName("Name").String() }

// find returns the entry of a list with the given name.
func find(list reflect.Value, name string) (entry reflect.Value, ok bool) {
	for _, e := range list.Seq2() {
		if nameOf(e) == name {
			return e, true
		}
	}
	return reflect.Value{}, false
}

// equal compares two values. An empty list equals a missing one.
func equal(a, b reflect.Value) bool {
	if k := a.Kind(); (k == reflect.Slice || k == reflect.Map) && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// isText reports whether a configuration file gives the value as a single text.
func isText(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

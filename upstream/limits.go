package upstream

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"dray/upstream/oci"
)

// Class is a kind of request that registries count separately.
type Class string

// The classes.
const (
	ManifestGet  Class = "manifest_get"
	ManifestHead Class = "manifest_head"
	ManifestPut  Class = "manifest_put"
	BlobGet      Class = "blob_get"
	BlobHead     Class = "blob_head"
	UploadStart  Class = "upload_start" // POST, mounts included
	UploadPart   Class = "upload_part"  // PATCH
	UploadEnd    Class = "upload_end"   // PUT
	List         Class = "list"         // tags, referrers
	Delete       Class = "delete"       // DELETE of any content
)

// Classes lists all classes.
func Classes() []Class {
	return []Class{ManifestGet, ManifestHead, ManifestPut, BlobGet, BlobHead, UploadStart, UploadPart, UploadEnd, List, Delete}
}

func classOf(kind oci.Kind, method string) Class {
	reading := method == http.MethodGet
	switch {
	case method == http.MethodDelete:
		return Delete
	case kind == oci.KindManifest && reading:
		return ManifestGet
	case kind == oci.KindManifest && method == http.MethodPut:
		return ManifestPut
	case kind == oci.KindManifest:
		return ManifestHead
	case kind == oci.KindBlob && reading:
		return BlobGet
	case kind == oci.KindBlob:
		return BlobHead
	case kind == oci.KindUploads:
		return UploadStart
	case method == http.MethodPatch:
		return UploadPart
	case kind == oci.KindUpload:
		return UploadEnd
	}
	return List
}

// Rate is a ceiling that applies to the requests of some classes together.
type Rate struct {
	// Name is the registry's name for the operation.
	Name string
	// Classes are the classes that count towards the ceiling.
	Classes []Class
	// PerSecond is the ceiling, in requests per second.
	PerSecond float64
}

// RatesWith returns the ceilings of a registry, as perSecond changes them. A key of perSecond is
// the Name of a Rate, whose ceiling it replaces, or a Class that belongs to no Rate, for which it
// adds a ceiling; any other key is an error. The value 0 removes a ceiling.
func (q Quirks) RatesWith(perSecond map[string]float64) ([]Rate, error) {
	rates := slices.Clone(q.Rates)
	for _, name := range slices.Sorted(maps.Keys(perSecond)) {
		at := slices.IndexFunc(rates, func(r Rate) bool { return r.Name == name })
		switch {
		case at >= 0:
			rates[at].PerSecond = perSecond[name]
		case slices.Contains(Classes(), Class(name)) && !slices.ContainsFunc(q.Rates, func(r Rate) bool { return slices.Contains(r.Classes, Class(name)) }):
			rates = append(rates, Rate{Name: name, Classes: []Class{Class(name)}, PerSecond: perSecond[name]})
		default:
			return nil, fmt.Errorf("%q is not an operation; known operations: %s", name, strings.Join(q.rateNames(), ", "))
		}
	}
	return slices.DeleteFunc(rates, func(r Rate) bool { return r.PerSecond <= 0 }), nil
}

func (q Quirks) rateNames() []string {
	var names []string
	counted := map[Class]bool{}
	for _, r := range q.Rates {
		names = append(names, r.Name)
		for _, c := range r.Classes {
			counted[c] = true
		}
	}
	for _, c := range Classes() {
		if !counted[c] {
			names = append(names, string(c))
		}
	}
	return names
}

package oci

import (
	"bytes"
	"encoding/json"
	"strings"
)

// members are the names that mean something in an object of a manifest, with what is in them; nil
// for what holds no such names.
type members map[string]members

var descriptorMembers = members{
	"mediaType": nil, "digest": nil, "size": nil, "urls": nil, "annotations": nil, "artifactType": nil, "data": nil, "platform": nil,
}

var manifestMembers = members{
	"schemaVersion": nil, "mediaType": nil, "artifactType": nil, "annotations": nil,
	"config": descriptorMembers, "subject": descriptorMembers, "layers": descriptorMembers, "blobs": descriptorMembers, "manifests": descriptorMembers,
}

// CheckMembers refuses the bytes of a manifest that is read by some in another way than by others:
// with a member that is there twice, or called as it should be but for upper and lower case.
// Clients written in Go take "Config" for "config", and the last one of several; a check that did
// not would judge another image than the one that runs. The bytes must have been taken by
// [ParseManifest]. The error is ErrManifestInvalid.
func CheckMembers(raw []byte) error {
	return manifestMembers.check(json.NewDecoder(bytes.NewReader(raw)))
}

// check reads one value.
func (m members) check(d *json.Decoder) error {
	if m == nil {
		var skipped json.RawMessage
		return d.Decode(&skipped)
	}
	open, err := d.Token()
	if err != nil || open != json.Delim('{') && open != json.Delim('[') {
		return err
	}
	seen := map[string]bool{}
	for d.More() {
		inner := m // of the elements of an array
		if open == json.Delim('{') {
			key, err := d.Token()
			if err != nil {
				return err
			}
			if inner, err = m.member(key.(string), seen); err != nil {
				return err
			}
		}
		if err := inner.check(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// member finds what is in a member, with nil for one that means nothing.
func (m members) member(key string, seen map[string]bool) (members, error) {
	for name, inner := range m {
		switch {
		case !strings.EqualFold(name, key):
		case name != key:
			return nil, ErrManifestInvalid.With("the manifest is ambiguous: it has a member %q, which some read as %q", clip(key), name)
		case seen[name]:
			return nil, ErrManifestInvalid.With("the manifest is ambiguous: it has a member %q twice", name)
		default:
			seen[name] = true
			return inner, nil
		}
	}
	return nil, nil
}

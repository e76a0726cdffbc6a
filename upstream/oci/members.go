package oci

import (
	"bytes"
	"encoding/json"
	"strings"
)

// members has the names of the known members of a JSON object in a manifest. A name maps to the
// known members of its value. It maps to nil if dray does not check the value.
type members map[string]members

var descriptorMembers = members{
	"mediaType": nil, "digest": nil, "size": nil, "urls": nil, "annotations": nil, "artifactType": nil, "data": nil, "platform": nil,
}

var manifestMembers = members{
	"schemaVersion": nil, "mediaType": nil, "artifactType": nil, "annotations": nil,
	"config": descriptorMembers, "subject": descriptorMembers, "layers": descriptorMembers, "blobs": descriptorMembers, "manifests": descriptorMembers,
}

// CheckMembers refuses a manifest that parsers may read differently. Such a manifest has a known
// member twice, or a member whose name differs from a known name only in case. Clients written in
// Go read "Config" as "config", and use the last of several members with the same name. If a check
// of dray read the manifest differently from the client, the check would judge another image than
// the client runs. The manifest must have passed [ParseManifest]. The error is ErrManifestInvalid.
func CheckMembers(raw []byte) error {
	return manifestMembers.check(json.NewDecoder(bytes.NewReader(raw)))
}

// check reads one value and checks it.
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
		inner := m // for the elements of an array
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

// member returns the known members of the value under key. It returns nil if the key is unknown, or
// if dray does not check its value. The error says that the key is ambiguous.
func (m members) member(key string, seen map[string]bool) (members, error) {
	for name, inner := range m {
		switch {
		case !strings.EqualFold(name, key):
		case name != key:
			return nil, ErrManifestInvalid.With("the manifest is ambiguous: some clients read its member %q as %q", clip(key), name)
		case seen[name]:
			return nil, ErrManifestInvalid.With("the manifest is ambiguous: it has the member %q twice", name)
		default:
			seen[name] = true
			return inner, nil
		}
	}
	return nil, nil
}

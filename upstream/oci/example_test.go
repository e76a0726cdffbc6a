package oci_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"dray/upstream/oci"
)

// A server parses each request once and works with the values.
func ExampleParse() {
	r := httptest.NewRequest(http.MethodGet, "/v2/team/app/manifests/1.0?ns=docker.io", nil)
	q, err := oci.Parse(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(q.Kind, q.Repo, q.Ref.Tag, q.Namespace)
	// Output: manifest team/app 1.0 docker.io
}

// A client builds URLs from the same values, and never from strings of its own.
func ExampleRequest_URL() {
	q := oci.Request{Method: http.MethodGet, Kind: oci.KindTags, Repo: "team/app", N: 100, Last: "1.0"}
	fmt.Println(q.URL())
	// Output: /v2/team/app/tags/list?last=1.0&n=100
}

// The cause of an error is for the log. The client sees the code and the message.
func ExampleWriteError() {
	w := httptest.NewRecorder()
	oci.WriteError(w, oci.ErrManifestUnknown.With("no tag 1.0 in team/app").Because(errors.New("the database said no")))
	fmt.Println(w.Code)
	fmt.Println(w.Body)
	// Output:
	// 404
	// {"errors":[{"code":"MANIFEST_UNKNOWN","message":"no tag 1.0 in team/app"}]}
}

// A manifest is its exact bytes, and what they refer to.
func ExampleParseManifest() {
	raw := []byte(`{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
    "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
  },
  "layers": [{
    "mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 5,
    "digest": "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
  }]
}`)
	m, err := oci.ParseManifest("", raw)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range m.Children() {
		fmt.Println(c.Size, oci.Short(c.Digest), c.MediaType)
	}
	// Output:
	// 2 sha256:44136fa355b3 application/vnd.oci.empty.v1+json
	// 5 sha256:2cf24dba5fb0 application/vnd.oci.image.layer.v1.tar
}

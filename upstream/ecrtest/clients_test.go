package ecrtest_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"dray/upstream/ecrtest"
)

func awsAuth(s *ecrtest.Running) authn.Authenticator {
	return &authn.Basic{Username: "AWS", Password: s.Token("")}
}

// go-containerregistry pushes and pulls through every way in: plain HTTP by address, the ECR-shaped
// name, and TLS.
func TestGoContainerRegistry(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts ecrtest.Options
		host func(*ecrtest.Running) string
	}{
		{"address", ecrtest.Options{}, func(s *ecrtest.Running) string { return s.RegistryAddr }},
		{"name", ecrtest.Options{ObjectsByName: true}, func(s *ecrtest.Running) string { return s.RegistryHost }},
		{"tls", ecrtest.Options{SelfSigned: true, ObjectsByName: true}, func(s *ecrtest.Running) string { return s.RegistryHost }},
		{"hub", ecrtest.Options{Quirks: ecrtest.Hub()}, func(s *ecrtest.Running) string { return s.RegistryAddr }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := ecrtest.Start(t, tc.opts)
			s.CreateRepository("team/app")
			var nameOpts []name.Option
			if tc.opts.SelfSigned == false {
				nameOpts = append(nameOpts, name.Insecure)
			}
			ref, err := name.ParseReference(tc.host(s)+"/team/app:v1", nameOpts...)
			if err != nil {
				t.Fatal(err)
			}
			auth := awsAuth(s)
			if tc.opts.Quirks.Name == "hub" {
				auth = authn.Anonymous
			}
			tr := s.Transport()
			defer tr.CloseIdleConnections()
			opts := []remote.Option{remote.WithAuth(auth), remote.WithTransport(tr), remote.WithContext(t.Context())}
			img, err := random.Image(200<<10, 3)
			if err != nil {
				t.Fatal(err)
			}
			if err := remote.Write(ref, img, opts...); err != nil {
				t.Fatal(err)
			}
			got, err := remote.Image(ref, opts...)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Image(got); err != nil {
				t.Error(err)
			}
			want, _ := img.Digest()
			have, _ := got.Digest()
			if diff := cmp.Diff(want, have); diff != "" {
				t.Error(diff)
			}
			if n := s.Count(ecrtest.KindObjectGet); n < 4 {
				t.Errorf("objects fetched: %d, want at least 4", n)
			}
		})
	}
}

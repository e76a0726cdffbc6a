package ecrtest_test

import (
	"context"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

// Start the stand-in on a free port, push one blob, pull it, and look at what was asked for. A test
// calls Start, which stops the server when the test ends.
func Example() {
	quirks := ecrtest.ECR()
	quirks.HideUnreferenced = false // ECR gives a blob only after a manifest names it
	s, err := ecrtest.Listen(ecrtest.Options{Quirks: quirks}, ecrtest.Addresses{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { stop(); <-done }()

	s.CreateRepository("team/app") // as in ECR, a push does not create it
	repo, err := name.NewRepository(s.RegistryAddr+"/team/app", name.Insecure)
	if err != nil {
		fmt.Println(err)
		return
	}
	transport := s.Transport()
	defer transport.CloseIdleConnections()
	opts := []remote.Option{
		remote.WithAuth(&authn.Basic{Username: "AWS", Password: s.Token("")}),
		remote.WithTransport(transport),
	}
	layer := static.NewLayer([]byte("hello"), types.OCIUncompressedLayer)
	if err := remote.WriteLayer(repo, layer, opts...); err != nil {
		fmt.Println(err)
		return
	}
	d, err := layer.Digest()
	if err != nil {
		fmt.Println(err)
		return
	}
	pulled, err := remote.Layer(repo.Digest(d.String()), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	body, err := pulled.Compressed()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	fmt.Printf("%s, %v\n", got, err)
	fmt.Println("uploads finished:", s.Uploads().Finished)
	fmt.Println("requests for the blob:", s.Count(ecrtest.KindBlobGet))
	// Output:
	// hello, <nil>
	// uploads finished: 1
	// requests for the blob: 1
}

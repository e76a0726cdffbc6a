package fleet

import (
	"context"
	"net/http"

	"github.com/opencontainers/go-digest"
)

// ServerTLS and ClientTLS are the settings of both sides of a handshake.
var (
	ServerTLS = serverTLS
	ClientTLS = clientTLS
)

// Client returns the client by which f asks other members.
func (f *Fleet) Client() *http.Client { return f.client }

// SetMost bounds the leases of a member.
func (f *Fleet) SetMost(n int) { f.most = n }

// Take takes the lease of a blob, as a fetch does.
func (f *Fleet) Take(ctx context.Context, d digest.Digest, failed int64) (Lease, error) {
	return f.take(ctx, d, failed)
}

// Renew renews the leases, as Run does.
func (f *Fleet) Renew(ctx context.Context) { f.renew(ctx) }

// Tick does what Run does every RenewEvery.
func (f *Fleet) Tick() {
	ctx := context.Background()
	f.release(ctx)
	f.renew(ctx)
}

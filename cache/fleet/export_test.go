package fleet

import (
	"context"
	"net/http"
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

// Tick does what Run does every RenewEvery.
func (f *Fleet) Tick() {
	ctx := context.Background()
	f.release(ctx)
	f.renew(ctx)
}

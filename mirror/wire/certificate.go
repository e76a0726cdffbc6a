package wire

import (
	"crypto/tls"
	"fmt"
	"log/slog"

	"dray/mirror/reread"
)

// reloading is a certificate with its key. Both are read again when the file of one of them
// changes. ACME clients and cert-manager replace such files every few weeks.
type reloading struct {
	pair *reread.Value[*tls.Certificate]
}

func newReloading(certificate, key string, log *slog.Logger) (reloading, error) {
	pair, err := reread.New(log, func(texts [][]byte) (*tls.Certificate, error) {
		pair, err := tls.X509KeyPair(texts[0], texts[1])
		return &pair, err
	}, certificate, key)
	if err != nil {
		return reloading{}, fmt.Errorf("certificate: %w", err)
	}
	return reloading{pair}, nil
}

// get implements tls.Config.GetCertificate. While the files cannot be used, for example because
// only one of them has been replaced so far, get returns the last certificate that could be used.
func (c reloading) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	pair, _ := c.pair.Get()
	return pair, nil
}

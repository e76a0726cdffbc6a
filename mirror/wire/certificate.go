package wire

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// certificateCheck is how often the files of a certificate are looked at.
const certificateCheck = time.Minute

// reloading is a certificate that follows its files: ACME clients and cert-manager
// replace them every few weeks.
type reloading struct {
	certificate, key string
	current          atomic.Pointer[loaded]
	// next is when the files are due to be looked at, in Unix nanoseconds.
	next atomic.Int64
}

type loaded struct {
	pair     tls.Certificate
	modified time.Time
}

// load reads the files for the first time.
func (c *reloading) load() error {
	info, err := os.Stat(c.certificate)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.certificate, c.key)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c.current.Store(&loaded{pair, info.ModTime()})
	return nil
}

// get implements tls.Config.GetCertificate. One handshake in certificateCheck looks
// at the files; where they cannot be read the certificate stays as it is.
func (c *reloading) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now, due := time.Now(), c.next.Load()
	if now.UnixNano() >= due && c.next.CompareAndSwap(due, now.Add(certificateCheck).UnixNano()) {
		if info, err := os.Stat(c.certificate); err == nil && !info.ModTime().Equal(c.current.Load().modified) {
			_ = c.load() // half-written files are read again at the next check
		}
	}
	return &c.current.Load().pair, nil
}

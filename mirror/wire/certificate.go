package wire

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// certificateCheck is the interval between checks of the certificate's file.
const certificateCheck = time.Minute

// reloading is a certificate that is reloaded when its file changes. ACME clients and cert-manager
// replace such files every few weeks.
type reloading struct {
	certificate, key string
	current          atomic.Pointer[loaded]
	// next is when the file is due to be checked, in Unix nanoseconds.
	next atomic.Int64
}

type loaded struct {
	pair     tls.Certificate
	modified time.Time
}

// load reads the certificate and its key.
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

// get implements tls.Config.GetCertificate. At most once in certificateCheck, a handshake checks
// whether the certificate's file has changed. If the new files cannot be loaded, the current
// certificate stays in use.
func (c *reloading) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now, due := time.Now(), c.next.Load()
	if now.UnixNano() >= due && c.next.CompareAndSwap(due, now.Add(certificateCheck).UnixNano()) {
		if info, err := os.Stat(c.certificate); err == nil && !info.ModTime().Equal(c.current.Load().modified) {
			_ = c.load() // if it fails, as for half-written files, the next check loads again
		}
	}
	return &c.current.Load().pair, nil
}

package ecrtest

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
)

// findLayer returns a copy of the layer whose digest the request names, and the layer's repository.
func (s *Server) findLayer(x *exchange) (layer, *repository, error) {
	repo, err := s.repository(x)
	if err != nil {
		return layer{}, nil, err
	}
	if x.Digest == "" {
		return layer{}, nil, digestInvalid(x.RawRef)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := repo.layers[x.Digest]
	if !ok {
		return layer{}, nil, x.reg.blobUnknown(x.Repo, x.Digest)
	}
	return *l, repo, nil
}

func (s *Server) headBlob(x *exchange) error {
	if st := orDefault(s.Dialect().BlobHeadStatus, s.opts.Quirks.BlobHeadStatus); st != 0 {
		return refuse(st, "UNAUTHORIZED", "")
	}
	l, repo, err := s.findLayer(x)
	if err != nil {
		return err
	}
	if s.Dialect().SignedForGet {
		s.redirect(x, repo, l)
		return nil
	}
	if l.archived() && x.sw.ArchivedHeadStatus != http.StatusOK {
		return x.reg.blobUnknown(x.Repo, l.digest)
	}
	h := x.w.Header()
	h.Set("Content-Type", s.opts.Quirks.BlobHeadType)
	h.Set("Content-Length", strconv.FormatInt(l.size, 10))
	h.Set("Docker-Content-Digest", l.digest.String())
	x.w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) getBlob(x *exchange) error {
	l, repo, err := s.findLayer(x)
	if err != nil {
		return err
	}
	if s.opts.Quirks.HideUnreferenced && l.active == 0 {
		if x.sw.UnreferencedBlobStatus == http.StatusForbidden {
			return refuse(http.StatusForbidden, "DENIED", "The layer with digest '%s' is not accessible", l.digest)
		}
		return x.reg.blobUnknown(x.Repo, l.digest)
	}
	if x.sw.BlobRecordsPull {
		s.recordPullOfBlob(x, repo)
	}
	if l.remote != "" {
		if done, err := s.getRemote(x, repo, l); done || err != nil {
			return err
		}
	}
	h := x.w.Header()
	if s.opts.Quirks.RedirectBlobs && !(x.sw.InlineConfigs && l.isConfig) {
		s.redirect(x, repo, l)
		return nil
	}
	h.Set("Docker-Content-Digest", l.digest.String())
	h.Set("Content-Type", s.opts.Quirks.BlobHeadType)
	return s.serveFile(x.w, x.r, l)
}

// serveFile sends a blob, or ranges of it.
func (s *Server) serveFile(w http.ResponseWriter, r *http.Request, l layer) error {
	f, err := os.Open(s.blobPath(l.digest))
	if err != nil {
		return fmt.Errorf("open %s: %w", l.digest, err)
	}
	defer f.Close()
	http.ServeContent(w, r, "", zeroTime, io.ReadSeeker(f))
	return nil
}

func (s *Server) deleteBlob(x *exchange) error {
	_, repo, err := s.findLayer(x)
	if err != nil {
		return err
	}
	if !x.sw.BlobDelete {
		return refuse(http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.")
	}
	s.mu.Lock()
	delete(repo.layers, x.Digest)
	s.mu.Unlock()
	x.w.WriteHeader(http.StatusAccepted)
	return nil
}

// recordPullOfBlob counts a pull of every image that names the blob.
func (s *Server) recordPullOfBlob(x *exchange, repo *repository) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, img := range repo.images {
		for _, b := range img.doc.blobs {
			if b.Digest == x.Digest {
				s.recordPullLocked(x, img)
				break
			}
		}
	}
}

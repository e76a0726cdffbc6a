package page

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
)

//go:embed assets/page.css
var styleText []byte

//go:embed assets/page.js
var scriptText []byte

//go:embed assets/icon.svg
var iconText []byte

// asset is a file that the pages load. Its name changes with its content, so browsers may cache it.
type asset struct {
	path, contentType string
	content           []byte
}

type assets struct{ Style, Script, Icon asset }

func newAssets() assets {
	return assets{
		Style:  newAsset("page", "css", "text/css; charset=utf-8", styleText),
		Script: newAsset("page", "js", "text/javascript; charset=utf-8", scriptText),
		Icon:   newAsset("icon", "svg", "image/svg+xml", iconText),
	}
}

func newAsset(name, extension, contentType string, content []byte) asset {
	sum := sha256.Sum256(content)
	return asset{assetPrefix + name + "-" + base64.RawURLEncoding.EncodeToString(sum[:9]) + "." + extension, contentType, content}
}

// ServeHTTP sends one of the files.
func (a assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, f := range []asset{a.Style, a.Script, a.Icon} {
		if f.path == r.URL.Path {
			w.Header().Set("Content-Type", f.contentType)
			w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
			_, _ = w.Write(f.content) // fails only if the client has disconnected
			return
		}
	}
	http.NotFound(w, r)
}

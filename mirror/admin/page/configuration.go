package page

import (
	"context"
	"net/http"

	"github.com/a-h/templ"
)

func (h *Handler) configuration(_ context.Context, f frame, _ *http.Request) (templ.Component, error) {
	if h.s.Configuration == nil {
		return nil, errNotHere
	}
	text, err := h.s.Configuration()
	if err != nil {
		return nil, err
	}
	return configurationPage(f, text), nil
}

package config

func (u Upstream) validateAcknowledge(k *Report, path string) {
	if u.Acknowledge != AcknowledgeLocal {
		return
	}
	switch {
	case u.Kind == KindLocal:
		k.Add(path+".acknowledge", "means nothing for kind local: nothing is sent on")
	case !u.Push:
		k.Add(path+".acknowledge", "needs push: there is nothing else to acknowledge")
	}
}

func (q Queue) validate(k *Report) {
	if q.MaxPushes < 1 {
		k.Add("queue.max_pushes", "must be at least 1")
	}
	if q.ReportAfter <= 0 {
		k.Add("queue.report_after", "must be more than zero")
	}
}

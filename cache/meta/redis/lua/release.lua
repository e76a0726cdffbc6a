-- Deletes leases that still have their generation. KEYS: leases. ARGV: their generations.
for i, key in ipairs(KEYS) do
	if redis.call('HGET', key, 'g') == ARGV[i] then redis.call('DEL', key) end
end
return 1

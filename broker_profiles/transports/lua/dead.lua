-- Reading and removing dead letters.

-- Returns id, queue, the first bytes of the body, priority, reason, detail, deliveries, time, size; or nothing.
local function shown(id, bytes)
    local record = call('HGET', P .. 'dead', id)
    if not record then
        return nil
    end
    local queue, body, priority, reason, detail, deliveries, at = cmsgpack.unpack(record)
    return { id, queue, string.sub(body, 1, bytes), priority, reason, detail, deliveries, at, #body }
end

-- Returns the queue, body and priority of the one removed, or nothing.
local function unbury(id)
    local record = call('HGET', P .. 'dead', id)
    call('HDEL', P .. 'dead', id)
    call('HDEL', P .. 'dead:at', id)
    call('ZREM', P .. 'dead:ids', id)
    if not record then
        return nil
    end
    local queue, body, priority = cmsgpack.unpack(record)
    call('ZREM', P .. 'dead:ids:' .. queue, id)
    return queue, body, priority
end

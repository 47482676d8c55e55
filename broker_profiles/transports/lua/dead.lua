-- Removing dead letters.

-- Returns the queue, body and priority of the one removed, or nothing.
local function unbury(id)
    local record = call('HGET', P .. 'dead', id)
    if not record then
        return nil
    end
    local queue, body, priority = cmsgpack.unpack(record)
    call('HDEL', P .. 'dead', id)
    call('ZREM', P .. 'dead:ids', id)
    call('ZREM', P .. 'dead:ids:' .. queue, id)
    return queue, body, priority
end

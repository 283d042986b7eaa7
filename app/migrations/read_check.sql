-- What this release reads of its database; a rehearsed restore must answer it (drill.yml).
SELECT conversations.id, count(messages.position), max(messages.created_at)
FROM conversations
LEFT JOIN messages ON messages.conversation_id = conversations.id
GROUP BY conversations.id
ORDER BY conversations.id

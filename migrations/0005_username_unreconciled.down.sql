DROP TRIGGER username_note_unreconciled ON "user";
DROP FUNCTION username_note_unreconciled();
DROP TABLE username_unreconciled;
ALTER FUNCTION username_claim_release() SECURITY INVOKER RESET search_path;

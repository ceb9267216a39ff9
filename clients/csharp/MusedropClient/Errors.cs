using System;
using System.Collections.Generic;

namespace Musedrop
{
    /// <summary>What kind of error a code is.</summary>
    public enum ErrorKind
    {
        /// <summary>No error.</summary>
        None,
        /// <summary>The request asks for something that doesn't exist or isn't allowed: change the request.</summary>
        BadRequest,
        /// <summary>The face or the voice can't be used: give another file.</summary>
        BadMedia,
        /// <summary>A file isn't there.</summary>
        MissingMedia,
        /// <summary>The daemon's machine lacks what the request asks for.</summary>
        Unavailable,
        /// <summary>The same request may succeed another time.</summary>
        Temporary,
        /// <summary>It took too long.</summary>
        Timeout,
        /// <summary>Somebody cancelled the job.</summary>
        Cancelled,
        /// <summary>A mistake of the daemon, or a code that this client is too old for.</summary>
        Internal,
        /// <summary>The share can't be reached, or no daemon takes jobs from it.</summary>
        NoService
    }

    /// <summary>The codes of errors and their kinds.</summary>
    public static class ErrorCodes
    {
        /// <summary>The share, or its inbox, can't be reached or written.</summary>
        public const string ShareUnavailable = "share_unavailable";
        /// <summary>No daemon took the job file; it was taken back.</summary>
        public const string NotTaken = "not_taken";
        /// <summary>The job had not ended within <see cref="MusedropOptions.WaitTimeout"/>.</summary>
        public const string WaitTimeout = "wait_timeout";
        /// <summary>The job is done, or unknown to the daemon, and its result isn't in the outbox.</summary>
        public const string ResultMissing = "result_missing";

        static readonly Dictionary<string, ErrorKind> Kinds = new Dictionary<string, ErrorKind>
        {
            { "not_json", ErrorKind.BadRequest },
            { "trailing_comma", ErrorKind.BadRequest },
            { "not_an_object", ErrorKind.BadRequest },
            { "bad_encoding", ErrorKind.BadRequest },
            { "too_big", ErrorKind.BadRequest },
            { "bad_version", ErrorKind.BadRequest },
            { "unknown_key", ErrorKind.BadRequest },
            { "duplicate_key", ErrorKind.BadRequest },
            { "missing_key", ErrorKind.BadRequest },
            { "bad_value", ErrorKind.BadRequest },
            { "bad_option", ErrorKind.BadRequest },
            { "outside_roots", ErrorKind.BadRequest },
            { "id_conflict", ErrorKind.BadRequest },
            { "missing_media", ErrorKind.MissingMedia },
            { "inputs_gone", ErrorKind.MissingMedia },
            { "engine_unavailable", ErrorKind.Unavailable },
            { "encoder_unavailable", ErrorKind.Unavailable },
            { "weights_missing", ErrorKind.Unavailable },
            { "weights_damaged", ErrorKind.Unavailable },
            { "weights_unsafe", ErrorKind.Unavailable },
            { "download_failed", ErrorKind.Unavailable },
            { "media_too_large", ErrorKind.BadMedia },
            { "audio_unreadable", ErrorKind.BadMedia },
            { "audio_empty", ErrorKind.BadMedia },
            { "audio_too_short", ErrorKind.BadMedia },
            { "audio_too_long", ErrorKind.BadMedia },
            { "avatar_unreadable", ErrorKind.BadMedia },
            { "avatar_too_large", ErrorKind.BadMedia },
            { "video_too_long", ErrorKind.BadMedia },
            { "no_face", ErrorKind.BadMedia },
            { "disk_full", ErrorKind.Temporary },
            { "part_damaged", ErrorKind.Temporary },
            { "result_invalid", ErrorKind.Temporary },
            { "out_of_memory", ErrorKind.Temporary },
            { "interrupted", ErrorKind.Temporary },
            { "timeout", ErrorKind.Timeout },
            { "poison", ErrorKind.Internal },
            { "internal", ErrorKind.Internal },
            { "cancelled", ErrorKind.Cancelled },
            { ShareUnavailable, ErrorKind.NoService },
            { NotTaken, ErrorKind.NoService },
            { WaitTimeout, ErrorKind.Timeout },
            { ResultMissing, ErrorKind.Internal }
        };

        /// <summary>The kind of a code; <see cref="ErrorKind.Internal"/> for one that is not known here.</summary>
        /// <param name="code">A code of docs/errors.md or of this class; null means no error.</param>
        public static ErrorKind KindOf(string code)
        {
            if (code == null) return ErrorKind.None;
            ErrorKind kind;
            return Kinds.TryGetValue(code, out kind) ? kind : ErrorKind.Internal;
        }
    }

    /// <summary>A job could not be handed in.</summary>
    public sealed class MusedropException : Exception
    {
        /// <summary>The error's code.</summary>
        public string Code { get; private set; }
        /// <summary>What to do about it.</summary>
        public string Hint { get; private set; }
        /// <summary>What kind of error it is.</summary>
        public ErrorKind Kind { get { return ErrorCodes.KindOf(Code); } }

        internal MusedropException(string code, string message, string hint, Exception cause = null) : base(message, cause)
        {
            Code = code;
            Hint = hint;
        }
    }
}

using System;
using System.Collections.Generic;

namespace Musedrop
{
    /// <summary>Quality and size of the video.</summary>
    public enum VideoQuality
    {
        /// <summary>The smallest file (crf 30).</summary>
        Low,
        /// <summary>crf 23.</summary>
        Medium,
        /// <summary>crf 18, which is the default.</summary>
        High,
        /// <summary>The largest file (crf 14).</summary>
        Ultra
    }

    /// <summary>The order of queued jobs.</summary>
    public enum JobPriority
    {
        /// <summary>After the others.</summary>
        Low,
        /// <summary>In the order of arrival.</summary>
        Normal,
        /// <summary>Before the others.</summary>
        High
    }

    /// <summary>One of several voices of a job, and whose it is.</summary>
    public sealed class DigitalHumanVoice
    {
        /// <summary>Number of the face, counted from 0, from left to right in the first frame that shows all of them.</summary>
        public int Face { get; set; }
        /// <summary>A file with the voice of that face; it is copied into the inbox.</summary>
        public string AudioPath { get; set; }
        /// <summary>Seconds of the result at which the voice begins. Null: 0.</summary>
        public double? FromSeconds { get; set; }
    }

    /// <summary>How the person in a photo moves: a clip is made of the photo first, and its lips are moved then. For null, the engine's default applies.</summary>
    public sealed class DigitalHumanMotion
    {
        /// <summary>auto, musev or diffusers.</summary>
        public string Engine { get; set; }
        /// <summary>What the person does. Null: a calm speaker who looks into the camera.</summary>
        public string Prompt { get; set; }
        /// <summary>What is not wanted, instead of the engine's own list; an empty text for none.</summary>
        public string NegativePrompt { get; set; }
        /// <summary>Length of the clip, 1 to 30; it is played forward and back for as long as the voice. Null: 6.</summary>
        public double? Seconds { get; set; }
        /// <summary>Which of the possible clips, 0 to 4294967295. Null: 1.</summary>
        public long? Seed { get; set; }
        /// <summary>The shorter side of the clip in pixels, 256 to 1024 in steps of 64. Null: 512, or what there is memory for.</summary>
        public int? Size { get; set; }
        /// <summary>Which of the engine's networks.</summary>
        public string Variant { get; set; }
        /// <summary>The folder of another base model, for musev.</summary>
        public string Base { get; set; }
        /// <summary>How closely the prompt is followed, 1 to 20.</summary>
        public double? Guidance { get; set; }
        /// <summary>Denoising steps, 1 to 100.</summary>
        public int? Steps { get; set; }
        /// <summary>How a clip of few frames a second becomes one of 25: flow, minterpolate, blend or none.</summary>
        public string Interpolation { get; set; }
        /// <summary>Whether the result folder has the clip, too, as clip.mkv.</summary>
        public bool KeepClip { get; set; }
        /// <summary>The engine's own options by their names in docs/musev.md, such as motion_speed.</summary>
        public IDictionary<string, object> Options { get; set; }
    }

    /// <summary>A job: one face, one voice, and options. For null, the daemon's default applies.</summary>
    public sealed class DigitalHumanRequest
    {
        /// <summary>An image or a video with the face, on this computer or any share; it is copied into the inbox.</summary>
        public string AvatarImagePath { get; set; }
        /// <summary>The name of an avatar of the library, instead of <see cref="AvatarImagePath"/>.</summary>
        public string TemplateId { get; set; }
        /// <summary>A file with the voice; it is copied into the inbox.</summary>
        public string AudioPath { get; set; }
        /// <summary>Several faces, each with its own voice, instead of <see cref="AudioPath"/>.</summary>
        public IList<DigitalHumanVoice> Voices { get; set; }
        /// <summary>Seconds of the result at which the voice begins; before that the avatar is as it is. Null: 0.</summary>
        public double? FromSeconds { get; set; }
        /// <summary>Seconds of the result at which the voice ends; after that the avatar is as it is. Null: the end of the voice.</summary>
        public double? ToSeconds { get; set; }
        /// <summary>A second sound, such as music, which is heard in the result; it is copied into the inbox.</summary>
        public string SoundtrackPath { get; set; }
        /// <summary>Level of the soundtrack in decibels, -60 to 12. Null: 0, as it is.</summary>
        public double? SoundtrackDb { get; set; }
        /// <summary>What is seen where the avatar is transparent: a colour such as "white" or "#00b140", or the path of a picture, which is copied into the inbox. Null: white.</summary>
        public string Background { get; set; }
        /// <summary>Whether the avatar's transparency is kept: the video is a mov, ProRes 4444.</summary>
        public bool KeepAlpha { get; set; }
        /// <summary>How the person in a photo moves before the lips do. Null: not at all; an empty one: as a calm speaker.</summary>
        public DigitalHumanMotion Motion { get; set; }
        /// <summary>Where the face is, as x, y, width and height in pixels of the picture. Null: it is searched.</summary>
        public IList<double> FaceBox { get; set; }
        /// <summary>Which sound track is the voice, of a file with several: its number, counted from 1, or its language. Null: the default one.</summary>
        public string AudioTrack { get; set; }
        /// <summary>Further options of the engines by their names in docs/job-file.md: texts, numbers, bools, and lists of these.</summary>
        public IDictionary<string, object> Options { get; set; }
        /// <summary>Quality of the video.</summary>
        public VideoQuality? Quality { get; set; }
        /// <summary>Frames per second, above 0 and at most 120; 29.97 means 30000/1001. Null: 25 for an image, the video's own for a video.</summary>
        public double? Fps { get; set; }
        /// <summary>Frames per batch of the MuseTalk engine.</summary>
        public int? BatchSize { get; set; }
        /// <summary>Pixels by which the MuseTalk engine moves the box of the face.</summary>
        public int? BboxShift { get; set; }
        /// <summary>The job's place among queued jobs.</summary>
        public JobPriority? Priority { get; set; }
        /// <summary>Your id for the job, 1 to 128 printable characters, which the result repeats. Null: a new GUID.</summary>
        public string CacheKey { get; set; }
        /// <summary>Name of the result folder. Null: the name of the audio file with a unique suffix.</summary>
        public string Name { get; set; }
        /// <summary>auto, preview or musetalk.</summary>
        public string Engine { get; set; }
        /// <summary>Time limit of one attempt in seconds; then the job fails.</summary>
        public double? TimeoutSeconds { get; set; }
        /// <summary>For apps that have it: accepted, without effect. <see cref="DigitalHumanResponse.Notes"/> says so if it is true.</summary>
        public bool EnableEmotion { get; set; }
    }

    /// <summary>How a job ended.</summary>
    public sealed class DigitalHumanResponse
    {
        /// <summary>Whether there is a video.</summary>
        public bool Success { get; internal set; }
        /// <summary>Full path of the video on the share; null on failure.</summary>
        public string VideoPath { get; internal set; }
        /// <summary>The error code, such as no_face; null on success. See docs/errors.md and <see cref="ErrorCodes"/>.</summary>
        public string Error { get; internal set; }
        /// <summary>The kind of the error, for code that decides what to do.</summary>
        public ErrorKind ErrorKind { get; internal set; }
        /// <summary>What happened, as a sentence; empty on success.</summary>
        public string Message { get; internal set; }
        /// <summary>What to do about the error; empty on success.</summary>
        public string Hint { get; internal set; }
        /// <summary>Time from the start of the attempt to the end of the job.</summary>
        public TimeSpan ProcessingTime { get; internal set; }
        /// <summary>Length of the video.</summary>
        public TimeSpan Duration { get; internal set; }
        /// <summary>Whether an earlier result was returned.</summary>
        public bool FromCache { get; internal set; }
        /// <summary>End of the job, UTC; null if the daemon has not finished it.</summary>
        public DateTime? CompletedAt { get; internal set; }
        /// <summary>
        /// The content of result.json (docs/result.md) or of the error record: string, long, double, bool, null,
        /// lists (<see cref="IList{T}"/> of object) and objects (<see cref="IDictionary{TKey,TValue}"/> of string to object).
        /// </summary>
        public IDictionary<string, object> Metadata { get; internal set; }

        /// <summary>What was noticed and changed on the way, as sentences: the notes of result.json, and what was ignored.</summary>
        public IList<string> Notes { get; internal set; }

        internal DigitalHumanResponse()
        {
            Notes = new List<string>();
            Message = "";
            Hint = "";
            Metadata = new Dictionary<string, object>();
        }
    }
}
